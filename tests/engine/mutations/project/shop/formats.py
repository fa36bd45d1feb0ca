"""What the table of readers names."""

from __future__ import annotations


def plain(text: str) -> str:
    return text.upper()


def quoted(text: str) -> str:
    return f"'{text}'"


def fancy(text: str) -> str:
    return f"*{text}*"
