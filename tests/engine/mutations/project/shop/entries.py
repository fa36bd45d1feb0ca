"""Imported for what it registers."""

from __future__ import annotations

from shop.registry import Kind, register, weight


@register
def entry() -> int:
    return 173


class Special(Kind):
    def level(self) -> int:
        return 179


@weight.register
def _(value: int) -> int:
    return 181
