"""What every side says of the rows that came to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def sums(batches: Iterable[tuple[Any, Any]]) -> list[int]:
    """Rows, the sum of their labels, and that of the bits of their first number: whole numbers, so that they
    are equal for equal rows in any order.

    Args:
        batches: Features (rows, width), float32; labels (rows,).
    """
    rows = labels = bits = 0
    for features, label in batches:
        first, numbers = np.asarray(features)[:, 0], np.asarray(label)
        rows += len(numbers)
        labels += int(numbers.sum())
        bits += int(first.view(np.int32).sum(dtype=np.int64))
    return [rows, labels, bits]
