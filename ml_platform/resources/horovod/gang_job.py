"""A `HorovodJob` on a gang of any backend: warm ranks, one job after the other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ml_platform.errors import RankError
from ml_platform.resources import progress
from ml_platform.resources.horovod.failures import not_started
from ml_platform.resources.horovod.gang import Ended, Gang
from ml_platform.resources.horovod.job import OnMetrics, OnRankMetrics, RankResults
from ml_platform.resources.horovod.plan import LaunchPlan
from ml_platform.resources.horovod.rendezvous import rendezvous
from ml_platform.resources.horovod.submitted import Submitted
from ml_platform.resources.horovod.watch import TICK_S, Heard, Watch
from ml_platform.worker import messages
from ml_platform.worker.payload import name_of, pack_job, unpack_result

logger = logging.getLogger(__name__)

T = TypeVar("T")

SAY_S = 3.0
"""How long slots that others hold are waited for without a word: most Spark tasks are over by then."""


class GangJob:
    """A `HorovodJob` whose ranks are processes of their own.

    Args:
        start: Starts a gang, without waiting until its ranks are ready.
    """

    def __init__(self, plan: LaunchPlan, start: Callable[[LaunchPlan], Gang]) -> None:
        self._plan = plan
        self._start = start
        self._running = threading.Lock()
        self._ended: str | None = None
        self._jobs = 0
        self.waited_s = 0.0
        self._gang: Gang | None = start(plan)

    @property
    def backend(self) -> str:
        return self._plan.backend

    @property
    def ranks(self) -> int:
        return self._plan.world_size

    @property
    def plan(self) -> LaunchPlan:
        return self._plan if self._gang is None else self._gang.plan

    def run(
        self,
        fn: Callable[..., T],
        *args: Any,
        on_metrics: OnMetrics | None = None,
        on_rank_metrics: OnRankMetrics | None = None,
    ) -> RankResults[T]:
        name = name_of(fn)
        payload = pack_job(fn, args)
        heard = partial(_hand_on, on_metrics, on_rank_metrics)
        with self._running:
            asked = time.monotonic()
            gang = self._usable_gang()
            try:
                self._wait_until_ready(gang)
                self.waited_s += time.monotonic() - asked
                results = self._run_on(gang, name, payload, heard)
            except BaseException:
                self._end(gang)
                raise
        return RankResults(unpack_result(result, name=name) for result in results)

    def submit(self, fn: Callable[..., T], *args: Any) -> Submitted[T]:
        return Submitted(self, fn, args)

    def cancel(self) -> None:
        self._ended = self._ended or "the job was cancelled; its ranks were ended"
        gang = self._gang
        if gang is not None:
            gang.kill()

    def close(self) -> None:
        self._ended = self._ended or "the job is closed; its ranks were ended"
        gang = self._gang
        if gang is not None:
            self._end(gang)

    def _check(self) -> None:
        if self._ended is not None:
            raise RankError(self._ended)

    def _usable_gang(self) -> Gang:
        self._check()
        gang = self._gang
        if gang is not None and not gang.is_usable():
            self._end(gang)
        elif gang is not None and (reason := gang.unfit()) is not None:
            logger.info("the ranks are replaced: %s", reason)
            self._end(gang)
        self._check()
        if self._gang is None:
            self._gang = self._start(self._plan)
        return self._gang

    def _end(self, gang: Gang) -> None:
        gang.close()
        if self._gang is gang:
            self._gang = None

    def _wait_until_ready(self, gang: Gang) -> None:
        deadline = gang.started_at + self._plan.start_timeout_s
        said = ""
        while missing := gang.missing():
            event = gang.next_event(min(TICK_S, deadline - time.monotonic()))
            self._check()
            gang.check()
            if event is not None and isinstance(event[1], Ended):
                raise not_started([event[0].plan], gang)
            # One that ended before it could call has no connection that would tell.
            if event is None and (ended := gang.stillborn()):
                raise not_started(ended, gang)
            if time.monotonic() > deadline:
                raise not_started(missing, gang)
            if time.monotonic() > gang.started_at + SAY_S and (held_up := gang.held_up) not in ("", said):
                said = held_up
                progress.report(f"{gang.plan.world_size} ranks wait for slots: {said}")

    def _run_on(self, gang: Gang, name: str, payload: bytes, heard: Heard) -> list[bytes]:
        self._jobs += 1
        with rendezvous(gang.plan.address) as port:
            environment = {"HOROVOD_GLOO_RENDEZVOUS_PORT": str(port)}
            job = messages.Job(self._jobs, name, payload, environment)
            gang.forgive()
            for rank in gang.ranks:
                rank.mark_log()
                rank.send(job)
            watch = Watch(gang, job, heard, self._check)
            results = watch.results()
            for rank in gang.ranks:
                rank.handle.flush_log()
            return results


def _hand_on(
    on_metrics: OnMetrics | None, on_rank_metrics: OnRankMetrics | None, rank: int, message: messages.Message
) -> None:
    if isinstance(message, messages.Metrics):
        if on_metrics is not None and rank == 0:
            on_metrics(message.values, message.step)
        if on_rank_metrics is not None:
            on_rank_metrics(rank, message.values, message.step)
    elif isinstance(message, messages.Note):
        progress.report(message.message, done=message.done, total=message.total)
