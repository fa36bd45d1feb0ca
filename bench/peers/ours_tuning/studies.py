"""Two studies whose trials do what they are asked to: on one executor each, and on all ranks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import trial

from ml_platform import Horovod, SklearnSpec, Spark, Tracking, TrackingRun, dag, task
from ml_platform.resources.executor_call import call_on_executor
from ml_platform.specs.tuning import Asked, StudySpec, Trial
from ml_platform.tuning.attempt import attempt
from ml_platform.tuning.spaces import read_space
from tasks.tune import ask

BASE = SklearnSpec()
SPACE = read_space("sklearn", {"sklearn": {"rate": "0.01..1"}}, BASE)

spans: list[tuple[float, float]] = []
"""When each trial began and ended, in seconds of the process's clock."""


def tried(asked: Asked, run: TrackingRun, fit: Callable[[SklearnSpec], Sequence[float]]) -> Trial:
    began = time.perf_counter()
    found = attempt(
        "sklearn",
        asked,
        BASE,
        lambda spec, stop, hear: fit(spec),
        rivals=[],
        pruner="none",
        steps=1,
        metric="loss",
        run=run,
    )
    spans.append((began, time.perf_counter()))
    return found


@task(light=True)
def try_on_executor(asked: Asked, seconds: float, spark=Spark(), run: TrackingRun = Tracking()) -> Trial:  # type: ignore[no-untyped-def]
    """As `try_sklearn`, with another function to call there."""

    def fit(spec: SklearnSpec) -> list[float]:
        return [call_on_executor(spark, lambda: trial.loss(spec.rate, seconds))]

    return tried(asked, run, fit)


def added_up(rank: Any, x: float) -> float:
    """As a rank of the launchers, of which each adds up one number."""
    import horovod.tensorflow as hvd
    import tensorflow as tf

    return float(hvd.allreduce(tf.constant(x), op=hvd.Sum)) / rank.world_size


@task
def try_on_ranks(asked: Asked, job=Horovod(), run: TrackingRun = Tracking()) -> Trial:  # type: ignore[no-untyped-def]
    return tried(asked, run, lambda spec: [job.run(added_up, spec.rate).rank0])


@dag
def on_executors(study: StudySpec, seconds: float) -> list[Trial]:
    """As `flows.tune` asks and tries."""
    asked: list[Asked] = []
    trials: list[Trial] = []
    for number in range(1, study.trials + 1):
        known = max(0, number - study.parallel)
        asked.append(ask(number, study, SPACE, BASE, trials[:known], asked[known:]))
        trials.append(try_on_executor(asked[-1], seconds))
    return trials


@dag
def on_ranks(study: StudySpec, ranks: int) -> list[Trial]:
    trials: list[Trial] = []
    for number in range(1, study.trials + 1):
        trials.append(try_on_ranks(ask(number, study, SPACE, BASE, trials[:], []), job=Horovod(ranks=ranks)))
    return trials
