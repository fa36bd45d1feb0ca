"""The Spark session of one task. Not imported before there is a Spark application."""

from __future__ import annotations

import threading
from typing import Any

from pyspark.sql import SparkSession


class LateSession(SparkSession):
    """As `root.newSession()`, which the JVM makes when it is first used: a task may only call functions.

    Attributes:
        job_group: Jobs of the task are cancelled by this name.
    """

    def __init__(self, root: SparkSession, job_group: str) -> None:
        self.job_group = job_group
        self._root = root
        self._making = threading.Lock()
        self._sc = root.sparkContext

    def __getattr__(self, name: str) -> Any:
        """What a session has besides, once it is made."""
        if name.startswith("__"):
            raise AttributeError(name)
        with self._making:
            if "_jsparkSession" not in vars(self):
                super().__init__(self._sc, self._root._jsparkSession.newSession())
        return object.__getattribute__(self, name)

    def newSession(self) -> SparkSession:  # noqa: N802  (Spark's name)
        return self._root.newSession()
