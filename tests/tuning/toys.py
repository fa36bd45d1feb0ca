"""A study whose trials cost nothing and are noted in a file: python -m tests.tuning.toys FOLDER."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_platform import Tracking, TrackingRun, XGBoostSpec, dag, task
from ml_platform.specs.tuning import Asked, StudySpec, Trial
from ml_platform.tuning import sampling
from ml_platform.tuning.attempt import OnMetrics, attempt
from ml_platform.tuning.pruning import Stop
from ml_platform.tuning.spaces import read_space

BASE = XGBoostSpec(trees=8)
SPACE = read_space("xgboost", {}, BASE)
STUDY = StudySpec(trials=6, parallel=2)
KILLED = 4


def curve_of(spec: XGBoostSpec, stop: Stop | None, hear: OnMetrics) -> list[float]:
    """Losses that fall from step to step, to the distance of the rate from 0.1."""
    curve: list[float] = []
    for step in range(spec.trees):
        curve.append(abs(spec.rate - 0.1) + 1 / (1 + step))
        hear({"loss": curve[-1]}, step)
        if stop is not None and stop(curve):
            break
    return curve


@task
def ask(number: int, told: list[Trial], under_way: list[Asked]) -> Asked:
    return sampling.ask(STUDY, SPACE, BASE, number, told, under_way)


@task
def try_toy(asked: Asked, rivals: list[Trial], folder: str, run: TrackingRun = Tracking()) -> Trial:
    def fit(spec: XGBoostSpec, stop: Stop | None, hear: OnMetrics) -> Sequence[float]:
        with Path(folder, "tried").open("a") as file:
            file.write(f"{asked.number}\n")
        if asked.number == KILLED and not Path(folder, "killed").exists():
            Path(folder, "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return curve_of(spec, stop, hear)

    return attempt(
        "xgboost", asked, BASE, fit, rivals=rivals, pruner="median", steps=8, metric="loss", run=run
    )


@dag
def toys(folder: str) -> list[Trial]:
    """As `flows.tune` asks and tries."""
    asked: list[Asked] = []
    trials: list[Trial] = []
    for number in range(1, STUDY.trials + 1):
        known = max(0, number - STUDY.parallel)
        asked.append(ask(number, trials[:known], asked[known:]))
        trials.append(try_toy(asked[-1], trials[:known], folder))
    return trials


if __name__ == "__main__":
    print([trial.parameters for trial in toys(sys.argv[1])])
