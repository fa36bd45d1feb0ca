"""A job whose gang is started again after a rank was lost, whatever its backend."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ml_platform.errors import (
    DesyncError,
    InfrastructureError,
    RankError,
    RankLostError,
    ResourceStartError,
)
from ml_platform.resources import progress
from ml_platform.resources.horovod.job import HorovodJob, OnMetrics, OnRankMetrics, RankResults
from ml_platform.resources.horovod.plan import LaunchPlan
from ml_platform.resources.horovod.submitted import Submitted
from ml_platform.store.passing import passing_objects
from ml_platform.worker.payload import name_of
from ml_platform.worker.recoverable import Recoverable

T = TypeVar("T")

log = logging.getLogger(__name__)


class RestartingJob:
    """A `HorovodJob` around another, whose function finds its checkpoints when it is called again.

    Args:
        job: Starts other ranks by itself after a failure.
        max_restarts: How often within one `run`.
    """

    def __init__(self, job: HorovodJob, max_restarts: int) -> None:
        self._job, self._max_restarts = job, max_restarts

    @property
    def ranks(self) -> int:
        return self._job.ranks

    @property
    def backend(self) -> str:
        return self._job.backend

    @property
    def plan(self) -> LaunchPlan:
        return self._job.plan

    @property
    def waited_s(self) -> float:
        return self._job.waited_s

    @waited_s.setter
    def waited_s(self, seconds: float) -> None:
        self._job.waited_s = seconds

    def submit(self, fn: Callable[..., T], *args: Any) -> Submitted[T]:
        return Submitted(self, fn, args)

    def run(
        self,
        fn: Callable[..., T],
        *args: Any,
        on_metrics: OnMetrics | None = None,
        on_rank_metrics: OnRankMetrics | None = None,
    ) -> RankResults[T]:
        with passing_objects() as uri:
            recoverable: Callable[..., T] = Recoverable(fn, uri)
            run = partial(
                self._job.run, recoverable, *args, on_metrics=on_metrics, on_rank_metrics=on_rank_metrics
            )
            for number in range(1, self._max_restarts + 1):
                try:
                    return run()
                except InfrastructureError as error:
                    if not _may_pass(error):
                        raise
                    log.warning(
                        "restart %d of %d of %s, after\n%s", number, self._max_restarts, name_of(fn), error
                    )
                    progress.report(f"restart {number} of {self._max_restarts}: {error.what}")
            return run()

    def cancel(self) -> None:
        self._job.cancel()

    def close(self) -> None:
        self._job.close()


def _may_pass(error: InfrastructureError) -> bool:
    """Whether another gang may do better: not where the function raised, or ranks could never start."""
    if isinstance(error, RankError):
        return isinstance(error, RankLostError)
    return not isinstance(error, DesyncError | ResourceStartError)
