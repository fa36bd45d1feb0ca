"""How far a scoring is, told now and then while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path

EVERY_S = 10.0


@contextmanager
def progress(
    folder: Path, total: int | None, tell: Callable[[str], None] | None, *, every_s: float = EVERY_S
) -> Iterator[None]:
    """While the block runs, tell how many parts lie in `folder`.

    Args:
        total: Parts that there will be, where that is known.
        tell: Called in another thread, in the context of this one, when the number has changed.
    """
    if tell is None:
        yield
        return
    ended = threading.Event()
    watch = partial(_watch, folder, total, tell, every_s, ended, finished(folder))
    watcher = threading.Thread(target=copy_context().run, args=(watch,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(
    folder: Path,
    total: int | None,
    tell: Callable[[str], None],
    every_s: float,
    ended: threading.Event,
    last: int,
) -> None:
    began = time.monotonic()
    while not ended.wait(every_s):
        if (now := finished(folder)) != last:
            last = now
            tell(said(now, total, time.monotonic() - began))


def finished(folder: Path) -> int:
    """Parts that are finished."""
    return sum(1 for _ in folder.glob("[0-9a-f]*.parquet"))


def said(parts: int, total: int | None, seconds: float) -> str:
    """A line of progress.

    >>> said(3, 40, 61.2), said(3, None, 61.2)
    ('3 of 40 parts are scored after 61 s', '3 parts are scored after 61 s')
    """
    of = "" if total is None else f" of {total:,}"
    return f"{parts:,}{of} parts are scored after {seconds:.0f} s"
