"""Nobody uses this."""

from __future__ import annotations


def lonely(n: int) -> int:
    return n
