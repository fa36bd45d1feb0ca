"""How much memory this process and the Python processes below it hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

EVERY_S = 0.1


@contextmanager
def watched(peaks: dict[str, int]) -> Iterator[None]:
    """The most bytes that this process (`flow`) and those below it together (`workers`) hold meanwhile."""
    ended = threading.Event()

    def watch() -> None:
        flow = psutil.Process()
        while not ended.wait(EVERY_S):
            now = {"flow": _held(flow), "workers": sum(map(_held, flow.children(recursive=True)))}
            peaks.update({name: max(size, peaks.get(name, 0)) for name, size in now.items()})

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _held(process: psutil.Process) -> int:
    """Shared pages count in part. Java's heap has a size of its own: it is left out."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        if "python" in process.name():
            return int(process.memory_full_info().pss)
    return 0
