"""Train a model of each family and log it. All take raw rows: feature state and classes travel inside."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform import (
    Dataset,
    FeatureState,
    FineTuneSpec,
    Horovod,
    ImageState,
    KerasSpec,
    MLlibSpec,
    Model,
    Parts,
    SklearnSpec,
    Spark,
    SplitSpec,
    Tracking,
    XGBoostSpec,
    task,
)
from ml_platform.evaluation.pictures import draw_importance, draw_learning_curves
from ml_platform.inference.raw_model import read_manifest, write_raw_model
from ml_platform.specs.tracking import TrackingRun
from ml_platform.store.datasets import read_table
from ml_platform.store.folders import local_path
from ml_platform.store.leftovers import scratch_folder
from ml_platform.training.image_network import ImageNetwork
from ml_platform.training.job_reports import log_job, versions
from ml_platform.training.learned import Learned
from ml_platform.training.one_node import train_estimator
from ml_platform.training.spark_pipeline import train_pipeline
from ml_platform.training.tree_reports import log_importance
from ml_platform.training.trees import train_trees
from tasks.loops import fit_images, fit_keras

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ml_platform.resources.horovod.job import HorovodJob

EXAMPLE_ROWS = 5
MLLIB_PACKAGES = ("pyspark", "numpy", "pyarrow")
SKLEARN_PACKAGES = ("scikit-learn", "scipy", "numpy", "pyarrow")


@task
def train_keras(
    train: Dataset,
    validation: Dataset,
    state: FeatureState,
    parts: Parts,
    split: SplitSpec,
    spec: KerasSpec,
    job: HorovodJob = Horovod(max_restarts=1),
    run: TrackingRun = Tracking(nested=True),
) -> Model:
    """A dense network, trained by the gang; every rank ends with the same bytes, and the run says so."""
    run.log_params(
        {"family": "keras", "ranks": job.ranks, "backend": job.backend, "keras": spec, "split": split}
    )
    _log_inputs(run, parts)
    started = time.monotonic()
    weights = dict(enumerate(state.balanced_weights)) if spec.class_weight == "balanced" else None
    fitted = job.run(
        fit_keras,
        train,
        validation,
        spec,
        state.outputs,
        state.problem,
        weights or None,
        on_metrics=_metrics_to(run),
    ).rank0
    log_job(run, job, fitted, train, spec, wall_s=time.monotonic() - started)
    run.set_tags({f"proof.{key}": value for key, value in fitted.proof.items()})
    curves = draw_learning_curves(fitted.history, _curves_of("Keras", state))
    run.log_figure(curves, "learning_curves.png")
    return _log_model(run, "keras", fitted.model, state, split, parts, ranks=job.ranks)


@task
def fine_tune(
    train: Dataset,
    validation: Dataset,
    state: ImageState,
    start: ImageState,
    parts: Parts,
    split: SplitSpec,
    spec: FineTuneSpec,
    job: HorovodJob = Horovod(max_restarts=1),
    run: TrackingRun = Tracking(nested=True),
) -> Model:
    """A network from the images themselves, augmented, on the gang; every rank ends with the same bytes.

    Args:
        train: Pixels, as `state` makes them.
        start: Whose backbone is tuned. That of pixels is none: a network from scratch.
    """
    run.log_params(
        {
            "family": "fine_tuned",
            "ranks": job.ranks,
            "backend": job.backend,
            "fine_tune": spec,
            "split": split,
        }
    )
    _log_inputs(run, parts)
    started = time.monotonic()
    network = image_network(state, start)
    weights = dict(enumerate(state.balanced_weights)) if spec.class_weight == "balanced" else None
    fitted = job.run(fit_images, train, validation, spec, network, weights, on_metrics=_metrics_to(run)).rank0
    log_job(run, job, fitted, train, spec, wall_s=time.monotonic() - started)
    run.set_tags({f"proof.{key}": value for key, value in fitted.proof.items()})
    curves = draw_learning_curves(fitted.history, "Fine-tuned: learning curves")
    run.log_figure(curves, "learning_curves.png")
    return _log_model(run, "fine_tuned", fitted.model, state, split, parts, ranks=job.ranks)


def image_network(state: ImageState, start: ImageState) -> ImageNetwork:
    """What is tuned: the backbone of `start`, or where that is the pixels a network from scratch."""
    tuned = start.backbone_digest != state.backbone_digest
    backbone = local_path(start.backbone).read_bytes() if tuned else None
    return ImageNetwork(state.vector.size, state.outputs, backbone)


@task
def train_xgboost(
    train: Dataset,
    validation: Dataset,
    state: FeatureState,
    parts: Parts,
    split: SplitSpec,
    spec: XGBoostSpec,
    spark: SparkSession = Spark(),
    run: TrackingRun = Tracking(nested=True),
) -> Model:
    """Boosted trees, trained on Spark executors with early stopping on the validation part."""
    run.log_params({"family": "xgboost", "xgboost": spec, "split": split})
    _log_inputs(run, parts)
    trees = train_trees(spark, train, validation, state, spec, on_metrics=_metrics_to(run))
    run.log_metrics({"best_round": trees.best_round})
    log_importance(run, trees.importance, state.feature_names, "XGBoost: importance of features")
    curves = draw_learning_curves(trees.history, _curves_of("XGBoost", state), step="round")
    run.log_figure(curves, "learning_curves.png")
    return _log_model(run, "xgboost", trees.model, state, split, parts)


@task
def train_sklearn(
    train: Dataset,
    validation: Dataset,
    state: FeatureState,
    parts: Parts,
    split: SplitSpec,
    spec: SklearnSpec,
    run: TrackingRun = Tracking(nested=True),
) -> Model:
    """An estimator of scikit-learn, trained in this process."""
    run.log_params({"family": "sklearn", "sklearn": spec, "split": split})
    run.set_tags({"seed": spec.seed, **versions(SKLEARN_PACKAGES)})
    _log_inputs(run, parts)
    learned = train_estimator(train, validation, state, spec)
    _log_learned(run, learned, state.feature_names, f"scikit-learn, {spec.estimator}")
    return _log_model(run, "sklearn", learned.model, state, split, parts)


@task
def train_mllib(
    train: Dataset,
    validation: Dataset,
    state: FeatureState,
    parts: Parts,
    split: SplitSpec,
    spec: MLlibSpec,
    spark: SparkSession = Spark(),
    run: TrackingRun = Tracking(nested=True),
) -> Model:
    """A Pipeline of MLlib, trained on Spark executors. What it learnt predicts without Spark."""
    run.log_params({"family": "mllib", "mllib": spec, "split": split})
    run.set_tags({"seed": spec.seed, **versions(MLLIB_PACKAGES)})
    _log_inputs(run, parts)
    learned = train_pipeline(spark, train, validation, state, spec)
    _log_learned(run, learned, state.feature_names, f"MLlib, {spec.estimator}")
    return _log_model(run, "mllib", learned.model, state, split, parts)


def _log_learned(run: TrackingRun, learned: Learned, names: Sequence[str], title: str) -> None:
    """Losses by round, or of the finished model, and what it leans on."""
    for step, values in enumerate(zip(*learned.history.values(), strict=True)):
        run.log_metrics(dict(zip(learned.history, values, strict=True)), step=step)
    run.log_metrics(learned.facts)
    if any(len(values) > 1 for values in learned.history.values()):
        curves = draw_learning_curves(learned.history, f"{title}: learning curves", step="round")
        run.log_figure(curves, "learning_curves.png")
    if learned.importance:
        values = {names[number]: value for number, value in learned.importance.items()}
        picture = draw_importance(
            values, f"{title}: importance", measure=learned.measure, of="feature in use"
        )
        run.log_figure(picture, "importance.png")
        first = dict(sorted(values.items(), key=lambda item: (-item[1], item[0])))
        run.log_table({"feature": list(first), learned.measure: list(first.values())}, "importance.json")


def _metrics_to(run: TrackingRun) -> Callable[[Mapping[str, float], int], None]:
    return lambda metrics, step: run.log_metrics(metrics, step=step)


def _curves_of(family: str, state: FeatureState) -> str:
    """Title of learning curves. A number is learnt as its distance from the mean in standard deviations."""
    return f"{family}: learning curves" + (", of the standardised label" if state.target else "")


def _log_inputs(run: TrackingRun, parts: Parts) -> None:
    run.log_input(parts.train, context="training")
    run.log_input(parts.validation, context="validation")


def _log_model(
    run: TrackingRun,
    family: str,
    content: bytes,
    state: FeatureState,
    split: SplitSpec,
    parts: Parts,
    *,
    ranks: int = 1,
) -> Model:
    lineage = {"train": parts.train.fingerprint, "run_id": run.run_id}
    with scratch_folder() as scratch:
        model_file = Path(scratch) / "model"
        model_file.write_bytes(content)
        folder = write_raw_model(
            Path(scratch) / "raw_model",
            family=family,
            model_file=model_file,
            state=state,
            split=split,
            contract=parts.train.contract,
            lineage=lineage,
        )
        return run.log_model(
            folder=folder,
            family=family,
            contract=read_manifest(folder).contract,
            classes=state.classes,
            train=parts.train,
            ranks=ranks,
            example=read_table(parts.train).slice(0, EXAMPLE_ROWS),
        )
