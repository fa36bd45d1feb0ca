"""Typed tasks that flows compose. Thin: what they do lives in the libraries of `ml_platform`."""
