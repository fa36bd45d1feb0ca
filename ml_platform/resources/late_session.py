"""The Spark session of one task. Not imported before there is a Spark application."""

from __future__ import annotations

import threading
from typing import Any

from pyspark.sql import SparkSession

POOL = "spark.scheduler.pool"


class LateSession(SparkSession):
    """As `root.newSession()`, with a scheduler pool for jobs of the thread: made when it is first used.

    A task that only calls functions on executors needs neither.

    Attributes:
        root: The application's session.
        job_group: Jobs of the task are cancelled by this name.
    """

    def __init__(self, root: SparkSession, job_group: str) -> None:
        self.root, self.job_group = root, job_group
        self._making = threading.Lock()

    @property
    def is_made(self) -> bool:
        return "_jsparkSession" in vars(self)

    def __getattr__(self, name: str) -> Any:
        """What a session has besides, once it is made."""
        if name.startswith("__"):
            raise AttributeError(name)
        with self._making:
            if not self.is_made:
                super().__init__(self.root.sparkContext, self.root._jsparkSession.newSession())
                # A pool is made once per name and never removed.
                self._sc.setLocalProperty(POOL, self.job_group)
        return object.__getattribute__(self, name)

    def newSession(self) -> SparkSession:  # noqa: N802  (Spark's name)
        return self.root.newSession()
