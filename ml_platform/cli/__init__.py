"""Commands that a person types: `python -m ml_platform …`, and the command line of a dag."""
