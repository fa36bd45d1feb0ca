"""Search for good parameters: ask for a point, try it, take the best. One line of `FAMILIES` per family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ml_platform import (
    Dataset,
    FeatureState,
    Horovod,
    KerasSpec,
    MLlibSpec,
    SklearnSpec,
    Spark,
    Task,
    Tracking,
    XGBoostSpec,
    task,
)
from ml_platform.evaluation.metrics import primary_metric
from ml_platform.resources.executor_call import call_on_executor
from ml_platform.specs.base import Spec
from ml_platform.specs.references import Family
from ml_platform.specs.tracking import TrackingRun
from ml_platform.specs.tuning import Asked, Pruner, Space, StudySpec, Trial
from ml_platform.training.one_node import train_estimator
from ml_platform.training.spark_pipeline import train_pipeline
from ml_platform.training.trees import train_trees
from ml_platform.tuning import sampling
from ml_platform.tuning.attempt import OnMetrics, attempt, losses
from ml_platform.tuning.board import best_trial
from ml_platform.tuning.pruning import Stop
from ml_platform.tuning.spaces import applied
from tasks import loops
from tasks.train import train_keras, train_mllib, train_sklearn, train_xgboost

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ml_platform.resources.horovod.job import HorovodJob


@task
def ask(
    number: int, study: StudySpec, space: Space, base: Spec, told: list[Trial], under_way: list[Asked]
) -> Asked:
    """The point that a trial shall try, from what earlier ones found."""
    return sampling.ask(study, space, base, number, told, under_way)


@task
def try_keras(
    asked: Asked,
    rivals: list[Trial],
    pruner: Pruner,
    train: Dataset,
    validation: Dataset,
    state: FeatureState,
    base: KerasSpec,
    job: HorovodJob = Horovod(max_restarts=1),
    run: TrackingRun = Tracking(),
) -> Trial:
    """One point of the network, on the warm ranks."""
    weights = dict(enumerate(state.balanced_weights)) if base.class_weight == "balanced" else None

    def fit(spec: KerasSpec, stop: Stop | None, hear: OnMetrics) -> list[float]:
        arguments = (train, validation, spec, state.outputs, state.problem, weights, stop)
        history = job.run(loops.try_keras, *arguments, on_metrics=hear).rank0
        if isinstance(history, Exception):
            raise history
        return _losses(history, state)

    return attempt(
        "keras",
        asked,
        base,
        fit,
        rivals=rivals,
        pruner=pruner,
        steps=base.epochs,
        metric=_metric(state),
        run=run,
    )


@task
def try_xgboost(
    asked: Asked,
    rivals: list[Trial],
    pruner: Pruner,
    train: Dataset,
    validation: Dataset,
    state: FeatureState,
    base: XGBoostSpec,
    spark: SparkSession = Spark(),
    run: TrackingRun = Tracking(),
) -> Trial:
    """One point of the trees, on Spark executors."""

    def fit(spec: XGBoostSpec, stop: Stop | None, hear: OnMetrics) -> list[float]:
        trees = train_trees(spark, train, validation, state, spec, on_metrics=hear, stop=stop)
        return _losses(trees.history, state)

    return attempt(
        "xgboost",
        asked,
        base,
        fit,
        rivals=rivals,
        pruner=pruner,
        steps=base.trees,
        metric=_metric(state),
        run=run,
    )


@task
def try_sklearn(
    asked: Asked,
    rivals: list[Trial],
    pruner: Pruner,
    train: Dataset,
    validation: Dataset,
    state: FeatureState,
    base: SklearnSpec,
    spark: SparkSession = Spark(),
    run: TrackingRun = Tracking(),
) -> Trial:
    """One point of an estimator, whole on one executor: it cannot be ended early."""

    def fit(spec: SklearnSpec, stop: Stop | None, hear: OnMetrics) -> list[float]:
        train_there = partial(train_estimator, train, validation, state, spec)
        return _losses(call_on_executor(spark, lambda: dict(train_there().history)), state)

    return attempt(
        "sklearn",
        asked,
        base,
        fit,
        rivals=rivals,
        pruner="none",
        steps=base.trees,
        metric=_metric(state),
        run=run,
    )


@task
def try_mllib(
    asked: Asked,
    rivals: list[Trial],
    pruner: Pruner,
    train: Dataset,
    validation: Dataset,
    state: FeatureState,
    base: MLlibSpec,
    spark: SparkSession = Spark(),
    run: TrackingRun = Tracking(),
) -> Trial:
    """One point of a Pipeline, on all executors together: it cannot be ended early."""

    def fit(spec: MLlibSpec, stop: Stop | None, hear: OnMetrics) -> list[float]:
        return _losses(train_pipeline(spark, train, validation, state, spec).history, state)

    return attempt(
        "mllib",
        asked,
        base,
        fit,
        rivals=rivals,
        pruner="none",
        steps=base.trees,
        metric=_metric(state),
        run=run,
    )


@task
def best_keras(trials: list[Trial], base: KerasSpec) -> KerasSpec:
    """The spec of the best trial."""
    return applied(base, best_trial(trials).parameters)


@task
def best_xgboost(trials: list[Trial], base: XGBoostSpec) -> XGBoostSpec:
    """The spec of the best trial."""
    return applied(base, best_trial(trials).parameters)


@task
def best_sklearn(trials: list[Trial], base: SklearnSpec) -> SklearnSpec:
    """The spec of the best trial."""
    return applied(base, best_trial(trials).parameters)


@task
def best_mllib(trials: list[Trial], base: MLlibSpec) -> MLlibSpec:
    """The spec of the best trial."""
    return applied(base, best_trial(trials).parameters)


@dataclass(frozen=True)
class FamilyTasks:
    """How a family is searched."""

    ask: Task[..., Asked]
    attempt: Task[..., Trial]
    best: Task[..., Any]
    train: Task[..., Any]
    resource: Callable[[Any], dict[str, Any]]
    """What a trial and the training hold open, sized by the spec."""
    side_by_side: bool
    """Whether several trials may run at once: not where each takes all ranks, or all executors."""


FAMILIES: dict[Family, FamilyTasks] = {
    "keras": FamilyTasks(
        ask=ask.with_options(name="ask_keras"),
        attempt=try_keras,
        best=best_keras,
        train=train_keras,
        resource=lambda spec: {"job": Horovod(ranks=spec.ranks, max_restarts=1)},
        side_by_side=False,
    ),
    "xgboost": FamilyTasks(
        ask=ask.with_options(name="ask_xgboost"),
        attempt=try_xgboost,
        best=best_xgboost,
        train=train_xgboost,
        resource=lambda spec: {"spark": Spark(slots=spec.workers)},
        side_by_side=True,
    ),
    "sklearn": FamilyTasks(
        ask=ask.with_options(name="ask_sklearn"),
        attempt=try_sklearn,
        best=best_sklearn,
        train=train_sklearn,
        resource=lambda spec: {},
        side_by_side=True,
    ),
    "mllib": FamilyTasks(
        ask=ask.with_options(name="ask_mllib"),
        attempt=try_mllib,
        best=best_mllib,
        train=train_mllib,
        resource=lambda spec: {},
        side_by_side=False,
    ),
}


def _metric(state: FeatureState) -> str:
    return primary_metric(state.problem)


def _losses(history: Any, state: FeatureState) -> list[float]:
    return losses(history, state.problem, scale=1.0 if state.target is None else state.target.scale)
