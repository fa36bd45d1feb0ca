"""Imported when it is used."""

from __future__ import annotations

from shop.deep import surcharge
from shop.pairs import LEFT, UPPER

CONSTANT = 61
OFFSET = 67


def helper(n: int) -> int:
    return n + OFFSET + _inner(n) + LEFT + UPPER


def _inner(n: int) -> int:
    return n * 71 + surcharge()


def unrelated(n: int) -> int:
    return n
