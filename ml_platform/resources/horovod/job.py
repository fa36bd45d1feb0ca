"""The driver half of a gang of ranks: what every backend offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from ml_platform.resources.horovod.plan import LaunchPlan
from ml_platform.resources.horovod.submitted import Submitted

T = TypeVar("T")

OnMetrics = Callable[[Mapping[str, float], int], None]
"""Hears values at a step, as rank 0 logs them."""

OnRankMetrics = Callable[[int, Mapping[str, float], int], None]
"""Hears a rank, and values at a step as it logs them."""


class RankResults(tuple[T, ...], Generic[T]):
    """What each rank's function returned, by rank."""

    __slots__ = ()

    @property
    def rank0(self) -> T:
        return self[0]


class HorovodJob(Protocol):
    """Ranks that wait for work.

    Attributes:
        ranks: How many.
        backend: Where they run.
        plan: Who runs where, with which environment; can be printed.
        waited_s: Seconds that the present task has waited for its ranks to be there; set anew by whoever
            hands the job to a task.
    """

    waited_s: float

    @property
    def ranks(self) -> int: ...

    @property
    def backend(self) -> str: ...

    @property
    def plan(self) -> LaunchPlan: ...

    def run(
        self,
        fn: Callable[..., T],
        *args: Any,
        on_metrics: OnMetrics | None = None,
        on_rank_metrics: OnRankMetrics | None = None,
    ) -> RankResults[T]:
        """Call `fn(rank, *args)` on every rank, and wait for all of them.

        The function, its arguments and its results are pickled, whatever the backend. Metrics and progress
        are heard in the thread that called `run`. One job runs at a time; another thread waits.
        After a failure the ranks are ended, and the next `run` starts others.

        Raises:
            SpecError: The function cannot be sent to ranks, or is too large.
            ResourceStartError: Ranks did not become ready in time.
            RankError: A rank raised, died or fell silent, or the job was cancelled. A `PlatformError` of the
                function comes back as what it is, with the rank added to its evidence.
        """

    def submit(self, fn: Callable[..., T], *args: Any) -> Submitted[T]:
        """The same, without waiting: the result later, metrics and logs as streams meanwhile."""

    def cancel(self) -> None:
        """End the ranks now, from any thread. A `run` under way fails, and every later one."""

    def close(self) -> None:
        """End the ranks. Twice is harmless."""
