"""A study of small models, whose trials are noted in a file: python -m tests.tuning.toys FOLDER."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ml_platform import Dataset, FeatureState, SklearnSpec, Tracking, TrackingRun, XGBoostSpec, dag, task
from ml_platform.specs.tables import NumericFeature
from ml_platform.specs.tuning import Asked, StudySpec, Trial
from ml_platform.training.one_node import train_estimator
from ml_platform.tuning import sampling
from ml_platform.tuning.attempt import OnMetrics, attempt, losses
from ml_platform.tuning.pruning import Stop
from ml_platform.tuning.spaces import read_space
from tests.worker.tables import blobs, packed_dataset

BASE = XGBoostSpec(trees=8)
LINEAR = SklearnSpec(estimator="linear")
SPACE = read_space("sklearn", {"sklearn": {"l2": "0.001..100 log"}}, LINEAR)
STUDY = StudySpec(trials=6, parallel=2, pruner="none")
KILLED = 4
WIDTH = 8
STATE = FeatureState(
    numeric=tuple(NumericFeature(name=f"x{at}", fill=0, center=0, scale=1) for at in range(WIDTH)),
    categories=(),
    classes=("a", "b", "c"),
    class_counts=(80, 80, 80),
    label="label",
)


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
    return sampling.ask(STUDY, SPACE, LINEAR, number, told, under_way)


@task
def try_linear(
    asked: Asked, train: Dataset, validation: Dataset, folder: str, run: TrackingRun = Tracking()
) -> Trial:
    """A real model of scikit-learn, in this process."""

    def fit(spec: SklearnSpec, stop: Stop | None, hear: OnMetrics) -> Sequence[float]:
        with Path(folder, "tried").open("a") as file:
            file.write(f"{asked.number}\n")
        if asked.number == KILLED and not Path(folder, "killed").exists():
            Path(folder, "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return losses_of(train, validation, spec)

    return attempt("sklearn", asked, LINEAR, fit, metric="log_loss", run=run)


def losses_of(train: Dataset, validation: Dataset, spec: SklearnSpec) -> list[float]:
    return losses(train_estimator(train, validation, STATE, spec).history, "multiclass", scale=1.0)


@dag
def toys(train: Dataset, validation: Dataset, folder: str) -> list[Trial]:
    """As `flows.tune` asks and tries."""
    asked: list[Asked] = []
    trials: list[Trial] = []
    for number in range(1, STUDY.trials + 1):
        known = max(0, number - STUDY.parallel)
        asked.append(ask(number, trials[:known], asked[known:]))
        trials.append(try_linear(asked[-1], train, validation, folder))
    return trials


def write_parts(folder: Path) -> tuple[Dataset, Dataset]:
    """Rows of three classes that overlap, to train on and held out, where this module looks for them."""
    features, labels = blobs(240, width=WIDTH)
    noise = np.random.default_rng(1).normal(scale=3, size=features.shape).astype(np.float32)
    train = packed_dataset(folder / "train", (features + noise)[:160], labels[:160])
    validation = packed_dataset(folder / "validation", (features + noise)[160:], labels[160:])
    for name, part in {"train": train, "validation": validation}.items():
        (folder / f"{name}.json").write_text(part.model_dump_json())
    return train, validation


def main(folder: str) -> None:
    parts = [
        Dataset.model_validate_json(Path(folder, f"{name}.json").read_text())
        for name in ("train", "validation")
    ]
    print([trial.parameters for trial in toys(*parts, folder)])


if __name__ == "__main__":
    main(sys.argv[1])
