"""The MLflow run of a flow run, and runs of tasks nested in it."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import ClassVar

from ml_platform.resources.budget import Need
from ml_platform.resources.leases import Scope, opened
from ml_platform.specs.placements import Placement
from ml_platform.specs.resources import TrackingSpec
from ml_platform.specs.tracking import TrackingRun
from ml_platform.tracking.runs import open_tracking
from ml_platform.tracking.server import check_tracking


class TrackingLease:
    """One MLflow run per flow run, opened ahead of its first user."""

    to_the_end: ClassVar[bool] = True
    prepares: ClassVar[bool] = False

    def __init__(self, spec: TrackingSpec, scope: Scope) -> None:
        self._scope = scope
        self._stack = ExitStack()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tracking")
        self._run: Future[TrackingRun] | None = None
        self._lock = threading.Lock()

    @classmethod
    def resolve(cls, spec: TrackingSpec, placement: Placement) -> TrackingSpec:
        return spec

    @classmethod
    def key(cls, spec: TrackingSpec) -> Hashable:
        return "run"

    @classmethod
    def need(cls, spec: TrackingSpec, placement: Placement) -> Need:
        return Need(name="tracking")

    @classmethod
    def preflight(cls, spec: TrackingSpec, placement: Placement) -> None:
        check_tracking()

    @classmethod
    def prepare(cls, spec: TrackingSpec, placement: Placement) -> None:
        """Nothing that could begin before there is a run."""

    def start(self) -> None:
        self._started()

    def _started(self) -> Future[TrackingRun]:
        with self._lock:
            if self._run is None:
                self._run = self._pool.submit(
                    self._stack.enter_context,
                    open_tracking(
                        experiment=self._scope.name, run_name=self._scope.run, tags=self._scope.tags
                    ),
                )
            return self._run

    @contextmanager
    def use(self, spec: TrackingSpec, *, task: str) -> Iterator[TrackingRun]:
        run = opened(self._started())
        if not spec.nested:
            yield run
            return
        with run.nested(task) as own:
            yield own

    def cancel(self, task: str | None = None) -> None:
        """Nothing waits for MLflow: what was logged stays."""

    def close(self, error: BaseException | None = None) -> None:
        self._pool.shutdown(wait=True)
        self._stack.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
