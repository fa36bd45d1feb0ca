"""A warm gang of Horovod ranks, shared by the tasks of a run, one job at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING, ClassVar

from ml_platform.errors import ResourceStartError
from ml_platform.resources.budget import Budget, Need, usable_cores
from ml_platform.resources.gpus import spark_gpu_settings
from ml_platform.resources.horovod import open_job, plan_launch
from ml_platform.resources.horovod.job import HorovodJob
from ml_platform.resources.horovod.nursery import prepare_nursery
from ml_platform.resources.horovod.stage_checks import check_gpu_settings, check_settings
from ml_platform.resources.horovod_build import horovod_available
from ml_platform.resources.leases import Scope, opened
from ml_platform.resources.slots import spark_slots
from ml_platform.resources.spark import has_ended, is_local, open_session
from ml_platform.resources.spark_launch import Launch, call_off
from ml_platform.specs.placements import Placement
from ml_platform.specs.resources import BACKENDS, HorovodSpec
from ml_platform.store.location import home

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class GangLease:
    """Ranks start ahead of need (importing TensorFlow takes them 10 s) and stay up between jobs."""

    to_the_end: ClassVar[bool] = False
    prepares: ClassVar[bool] = True

    def __init__(self, spec: HorovodSpec, scope: Scope) -> None:
        self._spec = spec
        self._scope = scope
        self._stack = ExitStack()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="horovod-start")
        self._job: Future[HorovodJob] | None = None
        self._session: SparkSession | None = None
        self._launch = Launch()
        self._user: str | None = None
        self._spent = False
        self._lock = threading.Lock()
        self._working = threading.Lock()

    @classmethod
    def resolve(cls, spec: HorovodSpec, placement: Placement) -> HorovodSpec:
        """Empty fields by the placement: as many ranks as it says and cores allow, one without Horovod."""
        backend = spec.backend or placement.horovod.backend
        ranks = spec.ranks
        if ranks is None:
            place = BACKENDS[backend].place
            cores = placement.budget.cores or usable_cores()
            most = spark_slots(placement) if place == "spark" else cores // placement.horovod.threads
            many = place != "process" and horovod_available().ok
            ranks = min(placement.horovod.ranks, most or placement.horovod.ranks) if many else 1
        gpu = placement.horovod.gpu if spec.gpu is None else spec.gpu
        return spec.model_copy(update={"ranks": ranks, "backend": backend, "gpu": gpu})

    @classmethod
    def key(cls, spec: HorovodSpec) -> Hashable:
        return spec

    @classmethod
    def need(cls, spec: HorovodSpec, placement: Placement) -> Need:
        ranks = spec.ranks or 1
        memory_mib = ranks * placement.horovod.memory_mib_per_rank
        if not _on_spark(spec):
            gpus = ranks if spec.gpu else 0
            cores = ranks * placement.horovod.threads
            name = f"horovod-{ranks}"
            return Need(name=name, cores=cores, memory_mib=memory_mib, gpus=gpus, exclusive=True)
        return Need(
            name=f"horovod-{ranks}",
            memory_mib=memory_mib if is_local(placement.spark.master) else 0,
            slots=ranks,
            exclusive=True,
            kept=True,
        )

    @classmethod
    def preflight(cls, spec: HorovodSpec, placement: Placement) -> None:
        available = horovod_available()
        if (spec.ranks or 1) > 1 and not available.ok:
            raise ResourceStartError(
                f"{spec.ranks} ranks cannot train together here",
                wanted="Horovod built against the installed TensorFlow",
                got=available.reason,
                hint="`make setup` builds it; without it one rank trains (leave `ranks` empty)",
            )
        if _on_spark(spec):
            _preflight_spark(spec, placement)

    @classmethod
    def prepare(cls, spec: HorovodSpec, placement: Placement) -> None:
        """Ranks of this machine are forked from a process that needs 5 s to import TensorFlow."""
        if spec.backend == "processes" and not spec.gpu:
            plan = plan_launch(spec, placement.horovod, home() / "logs" / "ranks")
            prepare_nursery(plan.ranks[0])

    def start(self) -> None:
        self._starting()

    def _starting(self) -> Future[HorovodJob]:
        with self._lock:
            failed = self._job is not None and self._job.done() and self._job.exception() is not None
            if self._spent or self._is_gone():
                self._stack.close()
                self._job, self._session, self._spent = None, None, False
            if self._job is None or failed:
                self._launch = Launch()
                self._job = self._pool.submit(self._opened, self._launch)
            return self._job

    def _is_gone(self) -> bool:
        """Whether the application that its tasks run in has ended: its JVM was killed, say."""
        return self._session is not None and has_ended(self._session)

    def _opened(self, launch: Launch) -> HorovodJob:
        placement = self._scope.placement
        if _on_spark(self._spec):
            # Its tasks run in the application of the run, which must outlive them.
            self._session = self._stack.enter_context(
                open_session(placement.spark, log_folder=self._scope.folder, launch=launch)
            )
        # Gangs of other sizes may have lived in this run: each keeps its own logs.
        log_folder = self._scope.folder / f"ranks-{self._spec.ranks}"
        gpus = Budget(placement.budget).gpus if self._spec.gpu and not _on_spark(self._spec) else 0
        job = open_job(self._spec, placement.horovod, log_folder=log_folder, gpus=gpus)
        return self._stack.enter_context(job)

    @contextmanager
    def use(self, spec: HorovodSpec, *, task: str) -> Iterator[HorovodJob]:
        asked = time.monotonic()
        with self._working:
            self._user = task
            try:
                job = opened(self._starting())
                job.waited_s = time.monotonic() - asked
                yield job
            finally:
                self._user = None

    def cancel(self, task: str | None = None) -> None:
        if task is None:
            self._launch.call_off()
        job = self._job
        if job is not None and task in (None, self._user) and job.done() and job.exception() is None:
            # A cancelled job runs nothing any more; whoever comes next, this task again too, gets a new one.
            self._spent = task is not None
            job.result().cancel()

    def close(self, error: BaseException | None = None) -> None:
        call_off(self._launch, self._job)
        self._pool.shutdown(wait=True)
        self._stack.close()


def _on_spark(spec: HorovodSpec) -> bool:
    return BACKENDS[spec.backend or "processes"].place == "spark"


def _preflight_spark(spec: HorovodSpec, placement: Placement) -> None:
    if spark_slots(placement) is None:
        raise ResourceStartError(
            f"nobody can say how many ranks fit on {placement.spark.master}",
            wanted="the number of tasks that its executors run at once",
            hint="`spark.slots` in the placement, or spark.cores.max in `spark.conf`",
        )
    check_settings(
        placement.spark.conf,
        network_is_loopback=ip_network(placement.horovod.network).is_loopback,
        unencrypted=placement.horovod.unencrypted,
    )
    if spec.gpu:
        own = spark_gpu_settings(placement.spark.master) if placement.spark.gpu else {}
        check_gpu_settings(own | placement.spark.conf, placement.spark.master)
