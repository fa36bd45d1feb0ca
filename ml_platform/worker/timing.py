"""Where the time of a rank goes. Imported in ranks alone.

Reading and shuffling happen beside the steps, so `feed` is no part of the time of an epoch: it costs time
only where it is the longer of the two.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ml_platform.worker.collective import Collective, gather_json

T = TypeVar("T")

_END: Any = object()


class Stopwatch:
    """Seconds that work took, added up. Another thread may look."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add what the code inside takes."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - started

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; what making each one took is added."""
        source = iter(items)
        while True:
            with self.running():
                item = next(source, _END)
            if item is _END:
                return
            yield item


class FitClock:
    """The time of one fit on one rank, by phase.

    Attributes:
        epochs_s: What epochs took, without validation.
    """

    def __init__(self, collective: Collective) -> None:
        self._collective = collective
        self._reduced_before = collective.allreduce_s
        self.feed = Stopwatch()
        self.validation = Stopwatch()
        self.epochs_s = 0.0

    def everyone(self) -> list[dict[str, float]]:
        """Seconds of each phase, by rank. Collective."""
        allreduce = self._collective.allreduce_s - self._reduced_before
        own = {
            "compute": max(self.epochs_s - allreduce, 0.0),
            "allreduce": allreduce,
            "validation": self.validation.seconds,
            "feed": self.feed.seconds,
        }
        found: list[dict[str, float]] = gather_json(self._collective, own)
        return found
