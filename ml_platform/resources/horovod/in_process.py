"""One rank in this very process: for tests, debugging, and machines without Horovod.

The function still crosses a pickle both ways, so that what works here works on ranks of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ml_platform.errors import RankError
from ml_platform.resources import progress
from ml_platform.resources.horovod.failures import failure
from ml_platform.resources.horovod.job import OnMetrics, OnRankMetrics, RankResults
from ml_platform.resources.horovod.plan import LaunchPlan
from ml_platform.resources.horovod.submitted import Submitted
from ml_platform.worker.collective import Alone
from ml_platform.worker.job import describe
from ml_platform.worker.payload import name_of, pack_job, pack_result, unpack_job, unpack_result
from ml_platform.worker.rank import Rank
from ml_platform.worker.session import quiet_tensorflow

T = TypeVar("T")


def start_job(plan: LaunchPlan) -> InProcessJob:
    """The job of a plan. There is nothing to start."""
    return InProcessJob(plan)


class InProcessJob:
    """A `HorovodJob` of one rank. `cancel` takes effect at the rank's next step or report."""

    backend = "in_process"
    ranks = 1

    def __init__(self, plan: LaunchPlan) -> None:
        self.waited_s = 0.0
        self.plan = plan
        self._plan = plan.ranks[0]
        self._running = threading.Lock()
        self._cancelled = threading.Event()

    def run(
        self,
        fn: Callable[..., T],
        *args: Any,
        on_metrics: OnMetrics | None = None,
        on_rank_metrics: OnRankMetrics | None = None,
    ) -> RankResults[T]:
        name = name_of(fn)
        payload = pack_job(fn, args)
        with self._running:
            if self._cancelled.is_set():
                raise RankError("the job was cancelled")
            quiet_tensorflow()
            reporter = _Reporter(self._plan.log_file, on_metrics, on_rank_metrics)
            value = self._called(name, payload, reporter)
        return RankResults([unpack_result(value, name=name)])

    def submit(self, fn: Callable[..., T], *args: Any) -> Submitted[T]:
        return Submitted(self, fn, args)

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        """Nothing is held open."""

    def _called(self, name: str, payload: bytes, reporter: _Reporter) -> bytes:
        try:
            function, args = unpack_job(payload)
            value = function(Rank(Alone(), reporter, cancelled=self._cancelled), *args)
            return pack_result(value, name=name)
        except (Exception, SystemExit) as error:
            if error is reporter.fault:
                raise
            raise failure(describe(0, error), self._plan, 1, name) from error


class _Reporter:
    """Reports go straight to whoever listens, in the thread that called `run`."""

    def __init__(
        self, log_file: Path, on_metrics: OnMetrics | None, on_rank_metrics: OnRankMetrics | None
    ) -> None:
        self.fault: Exception | None = None
        self._log_file = log_file
        self._on_metrics, self._on_rank_metrics = on_metrics, on_rank_metrics
        log_file.parent.mkdir(parents=True, exist_ok=True)
        log_file.touch(mode=0o600)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        with self._kept():
            if self._on_metrics is not None:
                self._on_metrics(values, step)
            if self._on_rank_metrics is not None:
                self._on_rank_metrics(0, values, step)

    def progress(self, message: str, done: float | None, total: float | None) -> None:
        with self._kept():
            progress.report(message, done=done, total=total)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Remember an error of the listener: it is the caller's own, not the rank's."""
        try:
            yield
        except Exception as error:
            self.fault = error
            raise

    def log(self, message: str) -> None:
        with self._log_file.open("a") as file:
            file.write(f"{message}\n")
