"""What a training by ranks leaves in a tracking run: speed, coverage, seeds, versions, the launch plan."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata

from ml_platform.evaluation.speed import Speed, draw_speed, speed_of
from ml_platform.resources.budget import usable_cores
from ml_platform.resources.horovod.job import HorovodJob
from ml_platform.resources.horovod.timeline import timeline_of
from ml_platform.specs.references import Dataset
from ml_platform.specs.tracking import TrackingRun
from ml_platform.specs.training import FineTuneSpec, KerasSpec
from ml_platform.worker.fitted import Fitted

PACKAGES = ("tensorflow-cpu", "tensorflow", "keras", "horovod", "numpy", "pyarrow")
WORK_TAG = "speed.work"
"""Equal on runs whose speed can be compared: same network, rows and machine."""
ALONE_TAG = "speed.ranks"
RATE = "speed.rows_per_second"


def log_job(
    run: TrackingRun,
    job: HorovodJob,
    fitted: Fitted,
    train: Dataset,
    spec: KerasSpec | FineTuneSpec,
    *,
    wall_s: float,
) -> Speed:
    """Log all of it, with a picture.

    Scaling efficiency is the rate per rank as a share of what one rank alone reached in the newest run of the
    same experiment that trained the same network on as many rows on this machine.

    Args:
        wall_s: What the job took its caller; what is not training is its launch.
    """
    work = hashlib.sha256(_work(spec, train).encode()).hexdigest()[:16]
    known = run.latest(RATE, {WORK_TAG: work, ALONE_TAG: 1}) if job.ranks > 1 else None
    speed = speed_of(
        fitted.rows_per_second,
        fitted.phases,
        launch_s=max(wall_s - fitted.seconds, 0.0),
        alone_rows_per_second=known,
    )
    seen = fitted.steps * spec.batch_rows
    coverage = {
        "coverage.rows": train.rows,
        "coverage.rows_seen_per_epoch": seen,
        "coverage.rows_dropped_per_epoch": fitted.rows_dropped_per_epoch,
    }
    seconds = {"seconds.training": fitted.seconds, "seconds.waiting_for_ranks": job.waited_s}
    run.log_metrics({**speed.metrics(), **coverage, **seconds})
    run.set_tags({WORK_TAG: work, ALONE_TAG: job.ranks, "seed": spec.seed, **versions()})
    run.log_text(f"{job.plan}\n", "launch_plan.txt")
    if (timeline := timeline_of(job.plan)) is not None:
        run.log_file(timeline)
    ranks = f"{job.ranks} rank{'s' * (job.ranks > 1)}"
    run.log_figure(draw_speed(speed, fitted.rows_per_second, f"Keras × {ranks}: speed"), "speed.png")
    return speed


def versions(packages: Sequence[str] = PACKAGES) -> Mapping[str, str]:
    """`version.<package>` of what computes, and of Python."""
    found = {"version.python": platform.python_version()}
    for name in packages:
        try:
            found[f"version.{name}"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _work(spec: KerasSpec | FineTuneSpec, train: Dataset) -> str:
    network = spec.model_copy(update={"ranks": None}).model_dump_json()
    width = train.contract["features"].width
    return f"{network} {train.rows} × {width} on {usable_cores()} cores of {platform.node()}"
