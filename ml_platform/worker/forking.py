"""What a process sees to that was forked from one with the imports done."""

from __future__ import annotations

import random
import sys


def reseed() -> None:
    """Global generators that an import has seeded: brothers must not draw the same."""
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
