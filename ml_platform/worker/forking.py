"""What a process sees to that was forked from one with the imports done."""

from __future__ import annotations

import random
import sys
import tempfile


def begin_anew() -> None:
    """What an import has settled for its process alone: brothers must not draw the same random numbers, and
    temporary files go where this process's environment says."""
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    tempfile.tempdir = None
