"""One of several that a name may come from."""

from __future__ import annotations


def rate() -> int:
    return 149


def limit() -> int:
    return 157


def wrapped() -> int:
    return 163


def passed() -> int:
    return 167
