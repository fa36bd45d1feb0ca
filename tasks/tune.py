"""Search for good parameters: ask for a point, try it, take the best. One line of `FAMILIES` per family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ml_platform import (
    Dataset,
    Evaluation,
    FeatureState,
    FineTuneSpec,
    Horovod,
    ImageState,
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
from ml_platform.specs.references import Family, ModelFamily
from ml_platform.specs.tracking import TrackingRun
from ml_platform.specs.tuning import Asked, Pruner, Space, StudySpec, Trial
from ml_platform.training.one_node import train_estimator
from ml_platform.training.spark_pipeline import train_pipeline
from ml_platform.training.trees import train_trees
from ml_platform.tuning import sampling
from ml_platform.tuning.attempt import OnMetrics, attempt, losses
from ml_platform.tuning.board import any_complete, best_trial, no_model
from ml_platform.tuning.pruning import Stop
from ml_platform.tuning.spaces import applied
from tasks import loops
from tasks.train import image_network, train_keras, train_mllib, train_sklearn, train_xgboost

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ml_platform.resources.horovod.job import HorovodJob

S = TypeVar("S", bound=Spec)
History = Mapping[str, Sequence[float]]
"""What was measured by epoch or round, by name."""


@task(light=True)
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

    def fit(spec: KerasSpec, stop: Stop | None, hear: OnMetrics) -> History:
        arguments = (train, validation, spec, state.outputs, state.problem, weights, stop)
        history: History | Exception = job.run(loops.try_keras, *arguments, on_metrics=hear).rank0
        if isinstance(history, Exception):
            raise history
        return history

    return _tried("keras", asked, base, fit, state, run, rivals=rivals, pruner=pruner, steps=base.epochs)


@task
def try_fine_tuned(
    asked: Asked,
    train: Dataset,
    validation: Dataset,
    state: ImageState,
    start: ImageState,
    base: FineTuneSpec,
    job: HorovodJob = Horovod(max_restarts=1),
    run: TrackingRun = Tracking(),
) -> Trial:
    """One point of a network that learns from images, on the warm ranks: it cannot be ended early.

    Args:
        train, state, start: As `fine_tune`.
    """
    weights = dict(enumerate(state.balanced_weights)) if base.class_weight == "balanced" else None
    network = image_network(state, start)

    def fit(spec: FineTuneSpec, stop: Stop | None, hear: OnMetrics) -> History:
        arguments = (train, validation, spec, network, weights)
        history: History | Exception = job.run(loops.try_images, *arguments, on_metrics=hear).rank0
        if isinstance(history, Exception):
            raise history
        return history

    return _tried("fine_tuned", asked, base, fit, state, run)


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

    def fit(spec: XGBoostSpec, stop: Stop | None, hear: OnMetrics) -> History:
        return train_trees(spark, train, validation, state, spec, on_metrics=hear, stop=stop).history

    return _tried("xgboost", asked, base, fit, state, run, rivals=rivals, pruner=pruner, steps=base.trees)


@task(light=True)
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

    def fit(spec: SklearnSpec, stop: Stop | None, hear: OnMetrics) -> History:
        train_there = partial(train_estimator, train, validation, state, spec)
        return call_on_executor(spark, lambda: dict(train_there().history))

    return _tried("sklearn", asked, base, fit, state, run)


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

    def fit(spec: MLlibSpec, stop: Stop | None, hear: OnMetrics) -> History:
        return train_pipeline(spark, train, validation, state, spec).history

    return _tried("mllib", asked, base, fit, state, run)


@task(light=True)
def has_best(trials: list[Trial]) -> bool:
    """Whether any trial gave a model."""
    return any_complete(trials)


@task(light=True)
def with_models(measured: list[Evaluation | None], studies: list[list[Trial]]) -> list[Evaluation]:
    """The models of those families that have one.

    Raises:
        DataError: No family has one; says why each has none.
    """
    found = [each for each in measured if each is not None]
    if not found:
        raise no_model([trial for trials in studies for trial in trials])
    return found


@task(light=True)
def best_keras(trials: list[Trial], base: KerasSpec) -> KerasSpec:
    """The spec of the best trial."""
    return applied(base, best_trial(trials).parameters)


@task(light=True)
def best_xgboost(trials: list[Trial], base: XGBoostSpec) -> XGBoostSpec:
    """The spec of the best trial."""
    return applied(base, best_trial(trials).parameters)


@task(light=True)
def best_sklearn(trials: list[Trial], base: SklearnSpec) -> SklearnSpec:
    """The spec of the best trial."""
    return applied(base, best_trial(trials).parameters)


@task(light=True)
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


def _tried(
    family: ModelFamily,
    asked: Asked,
    base: S,
    fit: Callable[[S, Stop | None, OnMetrics], History],
    state: FeatureState,
    run: TrackingRun,
    **pruning: Any,
) -> Trial:
    """An attempt whose losses stand in the history of what was trained, in the unit of the label."""
    scale = 1.0 if state.target is None else state.target.scale

    def losses_of(spec: S, stop: Stop | None, hear: OnMetrics) -> list[float]:
        return losses(fit(spec, stop, hear), state.problem, scale=scale)

    metric = primary_metric(state.problem)
    return attempt(family, asked, base, losses_of, metric=metric, run=run, **pruning)
