"""In a package without `__init__.py`."""

from __future__ import annotations


def grow(n: int) -> int:
    return n + 97
