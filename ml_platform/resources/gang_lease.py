"""A warm gang of Horovod ranks, shared by the tasks of a run, one job at a time."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar

from ml_platform.errors import ResourceStartError
from ml_platform.resources.budget import Need, usable_cores
from ml_platform.resources.horovod import open_job
from ml_platform.resources.horovod.job import HorovodJob
from ml_platform.resources.horovod_build import horovod_available
from ml_platform.resources.leases import Scope
from ml_platform.specs.placements import Placement
from ml_platform.specs.resources import HorovodSpec


class GangLease:
    """Ranks start ahead of need (importing TensorFlow takes them 10 s) and stay up between jobs."""

    to_the_end: ClassVar[bool] = False

    def __init__(self, spec: HorovodSpec, scope: Scope) -> None:
        self._spec = spec
        self._scope = scope
        self._stack = ExitStack()
        self._job: HorovodJob | None = None
        self._user: str | None = None
        self._opening = threading.Lock()
        self._working = threading.Lock()

    @classmethod
    def resolve(cls, spec: HorovodSpec, placement: Placement) -> HorovodSpec:
        """Empty fields by the placement: as many ranks as it says and cores allow, one without Horovod."""
        backend = spec.backend or placement.horovod.backend
        ranks = spec.ranks
        if ranks is None:
            cores = placement.budget.cores or usable_cores()
            many = backend != "in_process" and horovod_available().ok
            ranks = min(placement.horovod.ranks, cores) if many else 1
        return spec.model_copy(update={"ranks": ranks, "backend": backend})

    @classmethod
    def key(cls, spec: HorovodSpec) -> Hashable:
        return spec

    @classmethod
    def need(cls, spec: HorovodSpec, placement: Placement) -> Need:
        ranks = spec.ranks or 1
        memory_mib = ranks * placement.horovod.memory_mib_per_rank
        return Need(name=f"horovod-{ranks}", cores=ranks, memory_mib=memory_mib, exclusive=True)

    @classmethod
    def preflight(cls, spec: HorovodSpec, placement: Placement) -> None:
        available = horovod_available()
        if (spec.ranks or 1) > 1 and not available.ok:
            raise ResourceStartError(
                f"{spec.ranks} ranks cannot train together here",
                wanted="Horovod built against the installed TensorFlow",
                got=available.reason,
                hint="`make setup` builds it; without it one rank trains (leave `ranks` empty)",
            )

    def start(self) -> None:
        self._opened()

    def _opened(self) -> HorovodJob:
        with self._opening:
            if self._job is None:
                # Gangs of other sizes may have lived in this run: each keeps its own logs.
                log_folder = self._scope.folder / f"ranks-{self._spec.ranks}"
                job = open_job(self._spec, self._scope.placement.horovod, log_folder=log_folder)
                self._job = self._stack.enter_context(job)
            return self._job

    @contextmanager
    def use(self, spec: HorovodSpec, *, task: str) -> Iterator[HorovodJob]:
        with self._working:
            self._user = task
            try:
                yield self._opened()
            finally:
                self._user = None

    def cancel(self, task: str | None = None) -> None:
        if self._job is not None and task in (None, self._user):
            self._job.cancel()

    def close(self, error: BaseException | None = None) -> None:
        self._stack.close()
