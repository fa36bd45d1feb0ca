"""Flows: one file each, to be read like a table of contents and changed to taste."""
