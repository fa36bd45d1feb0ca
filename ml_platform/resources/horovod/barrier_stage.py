"""One barrier stage of Spark: as many tasks as ranks, all at once or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ml_platform.resources.spark import cancel_group

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

POOL = "horovod"


def slots(session: SparkSession) -> int:
    """Tasks that the application's executors can run at once, now."""
    scala: Any = session.sparkContext._jsc.sc()
    return int(scala.maxNumConcurrentTasks(scala.resourceProfileManager().defaultResourceProfile()))


def busy_slots(session: SparkSession, *, besides: str) -> dict[str, int]:
    """Slots that are taken now, by the name of the stage that has them; not those of a job group."""
    tracker = session.sparkContext.statusTracker()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(besides)]
    own = {stage for job in jobs if job is not None for stage in job.stageIds}
    stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds() if stage not in own]
    return {
        stage.name: stage.numActiveTasks for stage in stages if stage is not None and stage.numActiveTasks
    }


class BarrierStage:
    """Runs `function` in `tasks` tasks, from a thread and in a job group of its own."""

    def __init__(
        self,
        session: SparkSession,
        function: Callable[[Iterable[Any]], Iterator[Any]],
        tasks: int,
        *,
        group: str,
    ) -> None:
        self.ended = threading.Event()
        self.error: Exception | None = None
        self.group = group
        self._session, self._function, self._tasks = session, function, tasks
        self._thread = threading.Thread(target=self._run, name=group, daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """End the tasks, or never start them. From any thread."""
        if not self.ended.is_set():
            cancel_group(self._session, self.group)

    def join(self, timeout_s: float) -> bool:
        """Wait until every task has ended and its slot is free. False: they have not."""
        return self.ended.wait(timeout_s)

    def _run(self) -> None:
        context = self._session.sparkContext
        try:
            context.setJobGroup(self.group, self.group, interruptOnCancel=True)
            context.setLocalProperty("spark.scheduler.pool", POOL)
            rows = self._session.range(0, self._tasks, 1, self._tasks)
            rows.mapInArrow(self._function, "nothing long", barrier=True).collect()
        except Exception as error:  # noqa: BLE001  (whoever waits for the tasks tells it)
            self.error = error
        finally:
            self.ended.set()
