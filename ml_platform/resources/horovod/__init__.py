"""Horovod jobs: a gang of ranks that run one function together. A backend is a file here, and a row in
`ml_platform.specs.resources`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_platform.resources.horovod.job import HorovodJob
from ml_platform.resources.horovod.plan import LaunchPlan, plan_launch
from ml_platform.resources.horovod.restarts import RestartingJob
from ml_platform.resources.horovod.timeline import with_timeline
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.registry import load_named
from ml_platform.specs.resources import BACKENDS, HorovodSpec

__all__ = ["BACKENDS", "HorovodJob", "LaunchPlan", "open_job", "plan_launch"]


@contextmanager
def open_job(
    spec: HorovodSpec, placement: HorovodPlacement, *, log_folder: Path, gpus: int = 0
) -> Iterator[HorovodJob]:
    """Start the ranks, without waiting until they are ready: the first `run` does that.

    Args:
        log_folder: Gets one `rank-N.log` per rank.
        gpus: GPUs of this machine that ranks may use, one each. 0: as the environment says.
    Raises:
        ResourceStartError: The plan cannot run here, and nothing was started.
        SpecError: The backend cannot have that many ranks.
    """
    plan = plan_launch(spec, placement, log_folder, gpus=gpus)
    if spec.timeline and plan.world_size > 1:
        plan = with_timeline(plan)
    start: Callable[[LaunchPlan], HorovodJob] = load_named(BACKENDS[plan.backend].start)
    job = start(plan)
    try:
        yield RestartingJob(job, spec.max_restarts) if spec.max_restarts else job
    finally:
        job.close()
