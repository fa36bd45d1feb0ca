"""Modules that are looked up by name."""
