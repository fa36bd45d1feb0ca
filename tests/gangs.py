"""Gangs for tests. Importing TensorFlow takes ranks 10 s, so one warm pair serves all who only use it."""

from __future__ import annotations

import atexit
import functools
import tempfile
from pathlib import Path

import psutil

from ml_platform.resources.horovod import open_job, plan_launch, processes, spark_stage
from ml_platform.resources.horovod.gang_job import GangJob
from ml_platform.resources.horovod.job import HorovodJob
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import Backend, HorovodSpec


@functools.cache
def warm_pair() -> HorovodJob:
    """Two ranks with Horovod. A test that makes one of them fail pays for the next pair: use its own."""
    folder = tempfile.TemporaryDirectory(prefix="ml-platform-gang-")
    opened = open_job(HorovodSpec(ranks=2), HorovodPlacement(), log_folder=Path(folder.name))
    job = opened.__enter__()
    atexit.register(folder.cleanup)
    atexit.register(opened.__exit__, None, None, None)
    return job


def log_of_rank_0(job: HorovodJob) -> str:
    """What rank 0 has said so far."""
    return job.plan.ranks[0].log_file.read_text()


def light_job(
    folder: Path, *, backend: Backend = "processes", ranks: int = 1, heartbeat_timeout_s: float = 30
) -> GangJob:
    """Ranks without TensorFlow: up in half a second, for everything but training. Close it."""
    spec = HorovodSpec(ranks=ranks, backend=backend, heartbeat_timeout_s=heartbeat_timeout_s)
    start = spark_stage.start_job if backend == "spark" else processes.start_job
    return start(plan_launch(spec, HorovodPlacement(), folder, preload=False))


def ranks_of_this_process() -> list[psutil.Process]:
    """Ranks that live, started from here: processes of their own, or children of a nursery."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and _is_rank(child)
    ]


def nurseries_of_this_process() -> list[psutil.Process]:
    """Processes that live and fork ranks."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and NURSERY in child.cmdline()
    ]


NURSERY = "ml_platform.worker.nursery"


def _is_rank(process: psutil.Process) -> bool:
    try:
        parent = process.parent()
        forked = parent is not None and NURSERY in parent.cmdline() and NURSERY in process.cmdline()
        return forked or "ml_platform.worker" in process.cmdline()
    except psutil.NoSuchProcess:
        return False
