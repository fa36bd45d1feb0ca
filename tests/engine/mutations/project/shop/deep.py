"""Two calls away from any task."""

from __future__ import annotations

SURCHARGE = 29


def fee(n: int) -> int:
    return _fee(n) if n else 0


def _fee(n: int) -> int:
    return n * 31


def surcharge() -> int:
    return SURCHARGE


def join(words: list[str]) -> str:
    return ", ".join(words)


def untouched(n: int) -> int:
    return n * 1000
