"""Edits of a small project, and what they do to the keys of its tasks: here and under Prefect's own policies."""
