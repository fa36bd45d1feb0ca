"""A table of names that are imported on first use."""

from __future__ import annotations

from ml_platform.specs.registry import load_named

READERS = {"plain": "shop.formats:plain", "quoted": "shop.formats:quoted"}


def read(kind: str) -> str:
    reader = load_named(READERS[kind])
    return str(reader("text"))
