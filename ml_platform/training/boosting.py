"""One training of boosted trees by `xgboost.spark`: told about as it goes, whole when it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_platform.errors import ResourceStartError
from ml_platform.resources import progress
from ml_platform.resources.gpus import visible_gpus
from ml_platform.resources.metric_stream import StepDelivery, StreamAddress, open_stream
from ml_platform.specs.training import XGBoostSpec
from ml_platform.specs.trees import TreeKind

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

OnMetrics = Callable[[Mapping[str, float], int], None]
Stop = Callable[[Sequence[float]], bool]

ESTIMATORS: dict[TreeKind, str] = {
    "classifier": "SparkXGBClassifier",
    "regressor": "SparkXGBRegressor",
    "ranker": "SparkXGBRanker",
}
IMPORTANCE = ("gain", "cover", "weight")
GPU_SETTINGS = ("spark.executor.resource.gpu.amount", "spark.task.resource.gpu.amount")


@dataclass(frozen=True)
class Trees:
    """A trained Booster and how it got there."""

    model: bytes
    """The Booster as `.ubj`: rounds up to the best on validation, so that whoever scores uses all of it."""

    history: dict[str, list[float]]
    """Per round, also those after the best: `train-…` and `validation-…` of each metric."""

    best_round: int
    """Round with the best validation value, counted from 0; the last one where nothing was held out."""

    importance: dict[str, dict[int, float]]
    """`gain` (mean, per split), `cover` and `weight` (splits) by number of the feature; 0 is left out."""


def boost(
    spark: SparkSession,
    rows: DataFrame,
    kind: TreeKind,
    spec: XGBoostSpec,
    *,
    columns: Mapping[str, str],
    on_metrics: OnMetrics | None = None,
    stop: Stop | None = None,
) -> Trees:
    """Train on rows that are dealt to `spec.workers` partitions already.

    Args:
        rows: `label`, `features` (array<float>), and what `columns` names.
        columns: Further columns by XGBoost's parameter: `validation_indicator_col`, `weight_col`, ….
        on_metrics: Called with each round's metrics and number, as rounds happen, each round once.
        stop: Given the validation losses up to now, whether to end. Asked after each round, on executors.
    Raises:
        ResourceStartError: `device` is cuda, and there is no GPU, or XGBoost was built without CUDA.
    """
    check_device(spec, spark)
    delivery = StepDelivery(_reporting(spec.trees, on_metrics))
    host = spark.sparkContext.getConf().get("spark.driver.host") or "127.0.0.1"
    with open_stream(host, delivery.deliver) as address:
        fitted = _estimator(kind, spec, columns, address, stop).fit(rows)
    trees = _trees(fitted)
    delivery.fill(trees.history)
    return trees


def check_device(spec: XGBoostSpec, spark: SparkSession) -> None:
    """Refuse `device="cuda"` where it cannot be had, with the numbers.

    Raises:
        ResourceStartError: XGBoost was built without CUDA, or workers have no GPU each.
    """
    if spec.device == "cpu":
        return
    if not has_cuda():
        import xgboost

        raise ResourceStartError(
            "trees cannot be trained on a GPU here",
            wanted="a build of XGBoost with CUDA",
            got=f"xgboost {xgboost.__version__} without it",
            hint="make setup GPU=1 installs one; device='cpu' needs none",
        )
    conf = spark.sparkContext.getConf()
    if str(spark.sparkContext.master).startswith("local"):
        there = len(visible_gpus())
        if there < spec.workers:
            raise ResourceStartError(
                "trees cannot be trained on a GPU here",
                wanted=f"{spec.workers} GPUs, one per worker",
                got=there,
            )
        return
    absent = [name for name in GPU_SETTINGS if conf.get(name) is None]
    if absent:
        raise ResourceStartError(
            "trees cannot be trained on GPUs of this Spark application",
            wanted=" and ".join(GPU_SETTINGS),
            got=f"no {', no '.join(absent)}",
            hint="spark.gpu in the placement sets both",
        )


def has_cuda() -> bool:
    """Whether the installed XGBoost was built with CUDA."""
    import xgboost

    return bool(xgboost.build_info().get("USE_CUDA"))


def parameters(spec: XGBoostSpec) -> dict[str, Any]:
    """What XGBoost's estimators are told, on Spark or not."""
    return {
        "n_estimators": spec.trees,
        "max_depth": spec.depth,
        "learning_rate": spec.rate,
        "subsample": spec.subsample,
        "random_state": spec.seed,
        "tree_method": "hist",
        "device": spec.device,
        "verbosity": 0,
    }


def _reporting(trees: int, on_metrics: OnMetrics | None) -> OnMetrics:
    def report(metrics: Mapping[str, float], step: int) -> None:
        if on_metrics is not None:
            on_metrics(metrics, step)
        progress.report(f"tree {step + 1}/{trees}", done=step + 1, total=trees)

    return report


def _estimator(
    kind: TreeKind,
    spec: XGBoostSpec,
    columns: Mapping[str, str],
    address: StreamAddress | None,
    stop: Stop | None,
) -> Any:
    import xgboost.spark

    from ml_platform.training.tree_callback import RoundSender, StopByRule

    # It announces itself on stderr at INFO, and adds its own handler to do so.
    logging.getLogger("XGBoost-PySpark").setLevel(logging.WARNING)
    chosen = {"objective": objective} if (objective := getattr(spec, "objective", None)) else {}
    return getattr(xgboost.spark, ESTIMATORS[kind])(
        features_col="features",
        label_col="label",
        num_workers=spec.workers,
        early_stopping_rounds=spec.patience if "validation_indicator_col" in columns else None,
        callbacks=[
            *([] if address is None else [RoundSender(address)]),
            *([] if stop is None else [StopByRule(stop)]),
        ],
        **parameters(spec),
        **columns,
        **chosen,
    )


def _trees(fitted: Any) -> Trees:
    from ml_platform.training.tree_callback import flat_history

    booster = fitted.get_booster()
    summary = fitted.training_summary
    history = flat_history(
        {"training": summary.train_objective_history, "validation": summary.validation_objective_history}
    )
    stopped_early = "best_iteration" in booster.attributes()
    best = int(booster.best_iteration) if stopped_early else int(booster.num_boosted_rounds()) - 1
    kept = booster[: best + 1]
    return Trees(
        model=bytes(kept.save_raw("ubj")), history=history, best_round=best, importance=_importance(kept)
    )


def _importance(booster: Any) -> dict[str, dict[int, float]]:
    names = booster.feature_names or []
    places = {name: number for number, name in enumerate(names)}
    return {
        kind: {
            places.get(name, _number(name)): float(value)
            for name, value in booster.get_score(importance_type=kind).items()
        }
        for kind in IMPORTANCE
    }


def _number(name: str) -> int:
    """Of a feature without a name of its own: f12."""
    return int(name.removeprefix("f")) if name.removeprefix("f").isdecimal() else -1
