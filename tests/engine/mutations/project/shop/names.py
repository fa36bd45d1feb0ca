"""Functions that are looked up by name."""

from __future__ import annotations

from shop.deep import surcharge


def first() -> int:
    """The first."""
    return 73 + surcharge()


def second() -> int:
    return 79
