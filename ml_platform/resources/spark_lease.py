"""The Spark application of a run, and a session of its own for each task."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, ClassVar

from ml_platform.resources.budget import Need, usable_cores
from ml_platform.resources.leases import Scope, opened
from ml_platform.resources.slots import local_cores
from ml_platform.resources.spark import cancel_group, check_java, has_ended, open_session, task_session
from ml_platform.resources.spark_connect import check_no_connect
from ml_platform.resources.spark_launch import Launch, call_off
from ml_platform.resources.spark_losses import lost_executors
from ml_platform.specs.placements import Placement
from ml_platform.specs.resources import SparkSpec

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_uses = itertools.count(1)


class SparkLease:
    """One application, started once; every task gets `newSession()`, a job group and a pool."""

    to_the_end: ClassVar[bool] = False
    prepares: ClassVar[bool] = False

    def __init__(self, spec: SparkSpec, scope: Scope) -> None:
        self._scope = scope
        self._stack = ExitStack()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="spark-start")
        self._root: Future[SparkSession] | None = None
        self._launch = Launch()
        self._groups: dict[str, str] = {}
        self._lock = threading.Lock()

    @classmethod
    def resolve(cls, spec: SparkSpec, placement: Placement) -> SparkSpec:
        return spec

    @classmethod
    def key(cls, spec: SparkSpec) -> Hashable:
        return "application"

    @classmethod
    def need(cls, spec: SparkSpec, placement: Placement) -> Need:
        cores = local_cores(placement.spark.master, placement.budget.cores or usable_cores())
        memory_mib = placement.spark.driver_memory_mib
        return Need(name="spark", cores=cores, memory_mib=memory_mib, slots=spec.slots)

    @classmethod
    def preflight(cls, spec: SparkSpec, placement: Placement) -> None:
        check_no_connect(placement.spark)
        check_java()

    @classmethod
    def prepare(cls, spec: SparkSpec, placement: Placement) -> None:
        """Nothing that could begin before there is a run."""

    def start(self) -> None:
        self._started()

    def _started(self) -> Future[SparkSession]:
        with self._lock:
            if self._root is not None and _is_gone(self._root):
                self._stack.close()
                self._root = None
            if self._root is None:
                placement, folder = self._scope.placement.spark, self._scope.folder
                self._launch = Launch()
                session = open_session(placement, log_folder=folder, launch=self._launch)
                self._root = self._pool.submit(self._stack.enter_context, session)
            return self._root

    @contextmanager
    def use(self, spec: SparkSpec, *, task: str) -> Iterator[SparkSession]:
        root = opened(self._started())
        # A name of its own each time: in a cancelled group of an application nothing starts any more.
        group = f"{self._scope.run}/{task}/{next(_uses)}"
        self._groups[group] = task
        try:
            with lost_executors(root, task), task_session(root, spec, group=group) as session:
                yield session
        finally:
            del self._groups[group]

    def cancel(self, task: str | None = None) -> None:
        if task is None:
            self._launch.call_off()
        if self._root is not None and self._root.done() and self._root.exception() is None:
            for group, user in list(self._groups.items()):
                if task in (None, user):
                    cancel_group(self._root.result(), group)

    def close(self, error: BaseException | None = None) -> None:
        call_off(self._launch, self._root)
        self._pool.shutdown(wait=True)
        self._stack.close()


def _is_gone(root: Future[SparkSession]) -> bool:
    return root.done() and root.exception() is None and has_ended(root.result())
