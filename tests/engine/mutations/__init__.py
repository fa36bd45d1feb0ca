"""Edits of a small project, and what they do to keys: ours, and those of Prefect's own policies."""
