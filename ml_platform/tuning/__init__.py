"""Searches for good parameters. Optuna is told what every trial found, and asked for the next point."""
