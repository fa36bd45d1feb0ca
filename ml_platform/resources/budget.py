"""One budget of cores, memory and GPUs per run, for Spark, gangs and whatever else is held open."""

from __future__ import annotations

import itertools
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from ml_platform.errors import ResourceStartError
from ml_platform.specs.base import Spec
from ml_platform.specs.placements import BudgetSpec

GPU_FOLDER = Path("/proc/driver/nvidia/gpus")
"""One entry per GPU, where NVIDIA's driver is loaded."""


class Need(Spec):
    """What one resource uses while a task works with it. Users of the same `name` share it."""

    name: str
    cores: int = Field(0, ge=0)
    memory_mib: int = Field(0, ge=0)
    gpus: int = Field(0, ge=0)
    slots: int = Field(0, ge=0, description="Tasks of the Spark application that must run at once.")
    exclusive: bool = Field(False, description="One task at a time.")
    kept: bool = Field(False, description="Its slots stay taken between its users, until it is closed.")


class Budget:
    """Admits tasks as long as all that they need fits at once; a resource in use is counted once."""

    def __init__(self, spec: BudgetSpec, *, slots: int | None = None) -> None:
        self.slots = slots
        self.cores = spec.cores or usable_cores()
        self.memory_mib = spec.memory_mib or usable_memory_mib()
        self.gpus = usable_gpus() if spec.gpus is None else spec.gpus
        self._users: Counter[Need] = Counter()
        self._changed = threading.Condition(threading.RLock())

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPUs" if self.gpus else ""
        slots = "" if self.slots in (None, self.cores) else f", {self.slots} Spark slots"
        return f"{self.cores} cores, {self.memory_mib} MiB{gpus}{slots}"

    def check(self, needs: Iterable[Need], *, task: str) -> None:
        """Refuse what could never be admitted.

        Raises:
            ResourceStartError: One task alone needs more than the whole budget; says the numbers.
        """
        wanted = _total(needs)
        if not self._holds(wanted):
            raise ResourceStartError(
                f"task {task} can never get its resources here",
                wanted=_said(wanted, slots=not self._has_slots(wanted.slots)),
                got=f"a budget of {self}" if self._has_slots(wanted.slots) else f"{self.slots} Spark slots",
                hint="fewer ranks or less memory in the spec, or a larger placement (--placement)",
            )

    def try_admit(self, needs: Iterable[Need]) -> bool:
        """Take all of it, or nothing."""
        asked = list(needs)
        if not asked:
            return True
        with self._changed:
            if any(need.exclusive and self._users[need] for need in asked):
                return False
            if not self._holds(_total({*asked, *self._in_use()})):
                return False
            self._users.update(asked)
            return True

    def release(self, needs: Iterable[Need]) -> None:
        """Give back what `try_admit` took."""
        with self._changed:
            self._users.subtract(needs)
            self._changed.notify_all()

    @contextmanager
    def admitted(self, needs: Iterable[Need]) -> Iterator[None]:
        """Wait until all of it fits, hold it, give it back."""
        asked = list(needs)
        with self._changed:
            self._changed.wait_for(lambda: self.try_admit(asked))
        try:
            yield
        finally:
            self.release(asked)

    def fits_beside(self, needs: Iterable[Need]) -> bool:
        """Whether these keep their slots without anybody who was admitted having too few."""
        with self._changed:
            return self._has_slots(_total({*needs, *self._in_use()}).slots)

    def uses(self, need: Need) -> bool:
        """Whether somebody was admitted with it."""
        with self._changed:
            return self._users[need] > 0

    def _has_slots(self, count: int) -> bool:
        return self.slots is None or count <= self.slots

    def _in_use(self) -> list[Need]:
        return [need for need, users in self._users.items() if users > 0]

    def _holds(self, total: Need) -> bool:
        enough = total.cores <= self.cores and total.memory_mib <= self.memory_mib and total.gpus <= self.gpus
        return enough and self._has_slots(total.slots)


def _total(needs: Iterable[Need]) -> Need:
    """All of it at once; users of one resource share it, and the largest of their wishes counts."""
    by_name: dict[str, list[Need]] = {}
    for need in needs:
        by_name.setdefault(need.name, []).append(need)
    shared = by_name.values()
    return Need(
        name="total",
        cores=sum(max(need.cores for need in users) for users in shared),
        memory_mib=sum(max(need.memory_mib for need in users) for users in shared),
        gpus=sum(max(need.gpus for need in users) for users in shared),
        slots=sum(max(need.slots for need in users) for users in shared),
    )


def _said(need: Need, *, slots: bool) -> str:
    if slots:
        return f"{need.slots} slots of the Spark application at once"
    gpus = f", {need.gpus} GPUs" if need.gpus else ""
    return f"{need.cores} cores, {need.memory_mib} MiB{gpus}"


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_gpus(environment: Mapping[str, str] = os.environ, listed: Path = GPU_FOLDER) -> int:
    """NVIDIA GPUs that this process may use. Asks no program: a plan must not start one."""
    there = len(list(listed.iterdir())) if listed.is_dir() else 0
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return there
    named = list(itertools.takewhile(lambda word: word not in ("", "-1"), map(str.strip, visible.split(","))))
    return min(there, len(named))


def usable_memory_mib() -> int:
    """Memory of the machine, in MiB."""
    import psutil

    return int(psutil.virtual_memory().total // 2**20)
