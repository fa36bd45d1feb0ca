"""Watching one job until every rank has answered, or one of them has failed."""

from __future__ import annotations

import time
from collections.abc import Callable

from ml_platform.errors import PlatformError
from ml_platform.resources.horovod.failures import death, failure, silence
from ml_platform.resources.horovod.gang import Ended, Gang, RankProcess
from ml_platform.worker import messages

Heard = Callable[[int, messages.Message], None]

TICK_S = 0.5
_LATE_S = 5.0
"""A driver that was away longer than this (stopped, say) does not blame its ranks for the silence."""
_GRACE_S = 5.0
"""How much longer than a heartbeat may take a cause is waited for, when only its consequences are known."""


class Watch:
    """One job on a gang.

    Args:
        heard: Gets metrics and notes with their rank, in the thread that calls `results`.
        check: Raises when the job is to end.
    """

    def __init__(
        self,
        gang: Gang,
        job: messages.Job,
        heard: Heard,
        check: Callable[[], None],
    ) -> None:
        self._gang, self._job, self._heard, self._check = gang, job, heard, check
        self._answers: dict[int, bytes] = {}
        self._consequences: dict[int, PlatformError] = {}
        self._cause_due = 0.0

    def results(self) -> list[bytes]:
        """Every rank's result, by rank.

        Raises:
            PlatformError: What a rank failed with. Failures that Horovod reports on the other ranks only
                stand in for their cause where that never shows itself.
        """
        world_size = self._gang.plan.world_size
        while len(self._answers) < world_size:
            before = time.monotonic()
            event = self._gang.next_event(TICK_S)
            self._check()
            if time.monotonic() - before > TICK_S + _LATE_S:
                self._gang.forgive()
            if event is not None:
                self._take(*event)
            self._look_around()
        return [self._answers[rank] for rank in range(world_size)]

    def _take(self, rank: RankProcess, message: messages.Message | Ended) -> None:
        number = rank.plan.rank
        if isinstance(message, messages.Result) and message.job == self._job.number:
            self._answers[number] = message.payload
        elif isinstance(message, messages.Failed) and message.job == self._job.number:
            self._failed(rank, message)
        elif isinstance(message, Ended) and number not in self._answers:
            raise death(rank, self._gang.plan.world_size, self._job.name, message.reason)
        elif isinstance(message, messages.Metrics | messages.Note):
            self._heard(number, message)

    def _failed(self, rank: RankProcess, message: messages.Failed) -> None:
        plan = self._gang.plan
        rank.handle.flush_log()
        error = failure(message, rank.plan, plan.world_size, self._job.name, from_byte=rank.log_start)
        if not message.consequence:
            raise error
        if not self._consequences:
            self._cause_due = time.monotonic() + plan.heartbeat_timeout_s + _GRACE_S
        self._consequences[rank.plan.rank] = error

    def _look_around(self) -> None:
        plan = self._gang.plan
        unanswered = [rank for rank in self._gang.silent() if rank.plan.rank not in self._answers]
        if unanswered:
            raise silence(unanswered, plan.world_size, self._job.name, plan.heartbeat_timeout_s)
        known = len(self._consequences) + len(self._answers)
        if self._consequences and (known == plan.world_size or time.monotonic() > self._cause_due):
            raise self._likely_cause()

    def _likely_cause(self) -> PlatformError:
        """The failure of a rank that the others left: where some have returned, that is what it met."""
        error = self._consequences[min(self._consequences)]
        if len(self._consequences) + len(self._answers) == self._gang.plan.world_size and self._answers:
            returned = ", ".join(str(rank) for rank in sorted(self._answers))
            equal = "let all ranks take the same number of steps"
            said = f"rank {returned} had returned by then: {equal}"
            error.hint = "; ".join(filter(None, (said, error.hint)))
        return error
