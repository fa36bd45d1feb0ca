"""The machine: who else uses it, what it is, and how many threads each side gets."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

import psutil

THREADS = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
"""The same cap for every side: nothing here is about arithmetic."""
FOREIGN_LIMIT = 0.05
COUNTERS_S = 0.02
"""CPU times of processes are counted in hundredths of a second: two steps are no evidence."""
KERNEL = 2
"""Parent of the kernel's own threads."""


class ForeignLoad:
    """Share of the machine that others use between two looks: processes that are not below this one, and
    other guests of the host.

    From the CPU time of each process. The kernel's totals are samples, ten milliseconds apart: they see
    load in a short block where there is none. A Prefect server that was started here is not foreign.
    """

    def __init__(self) -> None:
        self._began = self._look()

    def share(self) -> float:
        """Since this was made, 0 to 1. What the counters cannot tell is not counted."""
        then, now = self._began, self._look()
        foreign, wall = (after - before for before, after in zip(then, now, strict=True))
        return max(0.0, foreign - COUNTERS_S) / (wall * (os.cpu_count() or 1)) if wall else 0.0

    @staticmethod
    def _look() -> tuple[float, float]:
        return foreign_cpu_seconds() + psutil.cpu_times().steal, time.monotonic()


def foreign_cpu_seconds() -> float:
    """CPU time of all processes but this one and those below it; of those that have ended, too.

    Threads of the kernel are left out: they write what any side wrote.
    """
    me = psutil.Process()
    mine = {me.pid, *(child.pid for child in me.children(recursive=True))}
    others = (process for process in psutil.process_iter() if process.pid not in mine)
    return sum(map(_cpu_seconds, others))


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        if KERNEL in (process.pid, process.ppid()):
            return 0.0
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


def facts() -> dict[str, str]:
    """What a reader needs to know of the machine."""
    return {
        "processor": f"{os.cpu_count()} × {_model()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "revision": _revision(),
        "threads": ", ".join(f"{name}={value}" for name, value in THREADS.items()),
    }


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _revision() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"
