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


class ForeignLoad:
    """Share of the machine that processes of others use, between two looks."""

    def __init__(self) -> None:
        self._began = self._look()

    def share(self) -> float:
        """Since this was made, 0 to 1."""
        then, now = self._began, self._look()
        busy, mine, wall = (after - before for before, after in zip(then, now, strict=True))
        return max(0.0, busy - mine) / (wall * (os.cpu_count() or 1)) if wall else 0.0

    @staticmethod
    def _look() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
        return busy, own_cpu_seconds(), time.monotonic()


def own_cpu_seconds() -> float:
    """CPU time of this process, of all below it, and of those of them that have ended."""
    me = psutil.Process()
    return sum(_cpu_seconds(process) for process in (me, *me.children(recursive=True)))


def _cpu_seconds(process: psutil.Process) -> float:
    try:
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
