"""How much memory a side holds, the end of one that holds too much, and rows of how it grows."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.context import Context, today
from bench.pairing import Interval
from bench.report import Row, row

EVERY_S = 0.05
FLAT = 0.05
"""Largest exponent of memory by rows that counts as flat."""


@dataclass
class Held:
    """The most bytes that a process (`flow`) and the Python processes below it (`workers`, together) held.

    Shared pages count in part. Java's heap has a size of its own: it is left out.
    """

    flow: int = 0
    workers: int = 0
    anonymous: int = 0
    """Of all of them, without pages of files: those are given back when memory lacks."""
    at_first: int = 0
    """Anonymous bytes at the first look."""
    killed: bool = False
    """It held more than it may."""


@contextmanager
def watched(pid: int, most: float = math.inf) -> Iterator[Held]:
    """Look twenty times a second; end a process, and all below it, at more than `most` anonymous bytes.

    That is when a cgroup with such a limit would end it, and it needs no right to make one. Limits of
    address space (RLIMIT_AS, RLIMIT_DATA) count what is reserved, too: TensorFlow and Java reserve a lot.
    """
    held, ended, root = Held(), threading.Event(), psutil.Process(pid)
    held.at_first = _pages(root)[1]

    def watch() -> None:
        while not held.killed and not ended.wait(EVERY_S):
            _look(root, held, most)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield held
    finally:
        ended.set()
        watcher.join()
        _look(root, held, most)


def _look(root: psutil.Process, held: Held, most: float) -> None:
    below = _below(root)
    (flow, own), *others = map(_pages, [root, *below])
    anonymous = own + sum(each for _, each in others)
    held.flow = max(held.flow, flow)
    held.workers = max(held.workers, sum(each for each, _ in others))
    held.anonymous = max(held.anonymous, anonymous)
    if anonymous > most:
        held.killed = True
        for process in (root, *below):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _below(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def _pages(process: psutil.Process) -> tuple[int, int]:
    """Bytes, and those of them that are no pages of files."""
    with suppress(psutil.Error, OSError):
        if "python" in process.name():
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {name: 1024 * int(size) for name, size, _ in map(str.split, lines)}
            return sizes["Pss:"], sizes["Pss_Anon:"] + sizes["Pss_Shmem:"]
    return 0, 0


def growth_row(
    context: Context,
    bench: str,
    case: str,
    sizes: Sequence[float],
    peaks: Sequence[int],
    *,
    peer: str = "ours",
    target: float | None = FLAT,
) -> Row:
    """The exponent by which memory grows from the first size to the last."""
    value = math.log(peaks[-1] / peaks[0]) / math.log(sizes[-1] / sizes[0])
    side = "ours" if peer == "ours" else "theirs"
    shown = {side: f"{peaks[0] / 2**20:.0f} to {peaks[-1] / 2**20:.0f} MiB", "limit": "constant, 0"}
    more = {"unit": "exponent", "target": target, "pairs": len(sizes), "date": today()}
    return row(bench, case, peer, context.size, Interval(value, value, value), **shown, **more)
