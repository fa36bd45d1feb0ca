"""Measuring models, comparing them, and the gate that decides on promotion."""
