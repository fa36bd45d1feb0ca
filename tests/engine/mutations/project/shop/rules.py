"""What only an annotation leads to."""

from __future__ import annotations

from shop.specs import Order


class Limited:
    ceiling = 43


def limit_of(order: Order, kind: type[Limited] = Limited) -> int:
    return min(order.amount, kind.ceiling) + kind.ceiling
