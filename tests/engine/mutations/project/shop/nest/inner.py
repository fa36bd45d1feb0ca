"""The module in question."""

from __future__ import annotations


def value() -> int:
    return 193
