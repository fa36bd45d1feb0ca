"""The start of a Spark application, which another thread may call off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from ml_platform.errors import ResourceStartError

TURN_S = 0.2
MARK = "_PYSPARK_DRIVER_CONN_INFO_PATH"
"""PySpark gives this variable to what it starts, and to nothing else."""


class Launch:
    """A start that nobody may want any more: for its JVM, and for the master behind it, it may wait for long.

    PySpark waits for both without an end, and shows the process to nobody before its gateway is there.
    """

    def __init__(self) -> None:
        self._called_off = False
        self._under_way = False
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise if it was called off."""
        if self._called_off:
            raise ResourceStartError("Spark was not started: the run that asked for it was stopped")

    @contextmanager
    def turn(self, lock: threading.Lock) -> Iterator[None]:
        """Hold the lock inside; wait for it only as long as the start is wanted."""
        self.check()
        while not lock.acquire(timeout=TURN_S):
            self.check()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Whatever PySpark starts inside ends when the start is called off. What was, raises."""
        self.check()
        self._under_way = True
        try:
            yield
        finally:
            with self._lock:
                self._under_way = False
        self.check()

    def call_off(self) -> None:
        """End what has been started so far, with all below it. What comes later needs another call."""
        with self._lock:
            self._called_off = True
            for child in psutil.Process().children() if self._under_way else ():
                with suppress(psutil.Error):
                    if MARK in child.environ():
                        # SIGKILL: a wrapper that hears of it may leave with 0, and PySpark would wait on.
                        for process in (child, *child.children(recursive=True)):
                            process.kill()


def call_off(launch: Launch, started: Future[Any] | None) -> None:
    """Call a start off until it is over: it may be about to start a process."""
    while started is not None and not started.done():
        launch.call_off()
        wait([started], timeout=TURN_S)
