"""Horovod jobs: a gang of ranks that run one function together. A backend is a file and a line below."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_platform.errors import SpecError, nearest
from ml_platform.resources.horovod.job import HorovodJob
from ml_platform.resources.horovod.plan import LaunchPlan, plan_launch
from ml_platform.resources.horovod.restarts import RestartingJob
from ml_platform.resources.horovod.timeline import with_timeline
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.registry import load_named
from ml_platform.specs.resources import HorovodSpec

__all__ = ["BACKENDS", "HorovodJob", "LaunchPlan", "open_job", "plan_launch"]

BACKENDS: dict[str, str] = {
    "in_process": "ml_platform.resources.horovod.in_process:start_job",
    "processes": "ml_platform.resources.horovod.processes:start_job",
    "spark": "ml_platform.resources.horovod.spark_stage:start_job",
}
"""Name → `module:function`, which takes a `LaunchPlan` and starts its job. Imported on first use."""


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
        SpecError: The backend does not exist or cannot have that many ranks.
    """
    plan = plan_launch(spec, placement, log_folder, gpus=gpus)
    if spec.timeline and plan.world_size > 1:
        plan = with_timeline(plan)
    job = _backend(plan.backend)(plan)
    try:
        yield RestartingJob(job, spec.max_restarts) if spec.max_restarts else job
    finally:
        job.close()


def _backend(name: str) -> Callable[[LaunchPlan], HorovodJob]:
    if name not in BACKENDS:
        raise SpecError(f"no Horovod backend {name!r}", hint=nearest(name, BACKENDS))
    start: Callable[[LaunchPlan], HorovodJob] = load_named(BACKENDS[name])
    return start
