"""The objective of a search: it uses so much processor time, on one thread, and gives a number."""

from __future__ import annotations

import time


def loss(x: float, seconds: float) -> float:
    """`seconds` are of processor time: who shares a core with others is not done sooner."""
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass
    return (x - 0.3) ** 2
