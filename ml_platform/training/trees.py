"""Boosted trees on Spark executors, by `xgboost.spark`, from packed features."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError
from ml_platform.resources import progress
from ml_platform.resources.metric_stream import StepDelivery, StreamAddress, open_stream
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import FeatureState
from ml_platform.specs.training import XGBoostSpec
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

ROWS_PER_PARTITION = 10_000
"""Parts are read in fewer partitions than this many rows each would make, so that rows reach every worker."""


@dataclass(frozen=True)
class Trees:
    """A trained Booster and how it got there."""

    model: bytes
    """The Booster as `.ubj`: rounds up to the best on validation, so that whoever scores uses all of it."""

    history: dict[str, list[float]]
    """Per round, also those after the best: `train-…` and `validation-…` of `mlogloss` or `logloss`."""

    best_round: int
    """Round with the lowest validation loss, counted from 0."""


def train_trees(
    spark: SparkSession,
    train: Dataset,
    validation: Dataset,
    state: FeatureState,
    spec: XGBoostSpec,
    *,
    on_metrics: Callable[[Mapping[str, float], int], None] | None = None,
) -> Trees:
    """Train boosted trees with early stopping on the validation part.

    Each worker is one Spark task with `spark.task.cpus` threads. Rows reach a worker in the same order every
    time, so that the same spec gives the same trees.

    Args:
        train: Columns `label` (index of the class) and `features` (packed, `state.width` values).
        validation: The same columns. Rows of classes that train does not know are left out.
        on_metrics: Called with each round's metrics and number, as rounds happen, each round once.
    Raises:
        DataError: There are fewer than two classes, or one without a row to train on.
        StoreError: The Spark job failed.
    """
    delivery = StepDelivery(_reporting(spec.trees, on_metrics))
    with spark_failures("training trees failed on Spark"):
        rows = _labelled_rows(spark, train, validation, state, spec)
        host = spark.sparkContext.getConf().get("spark.driver.host") or "127.0.0.1"
        with open_stream(host, delivery.deliver) as address:
            fitted = _classifier(spec, address).fit(rows)
    trees = _trees(fitted)
    delivery.fill(trees.history)
    return trees


def _reporting(
    trees: int, on_metrics: Callable[[Mapping[str, float], int], None] | None
) -> Callable[[Mapping[str, float], int], None]:
    def report(metrics: Mapping[str, float], step: int) -> None:
        if on_metrics is not None:
            on_metrics(metrics, step)
        progress.report(f"tree {step + 1}/{trees}", done=step + 1, total=trees)

    return report


def _classifier(spec: XGBoostSpec, address: StreamAddress | None) -> Any:
    from xgboost.spark import SparkXGBClassifier

    from ml_platform.training.tree_callback import RoundSender

    # It announces itself on stderr at INFO, and adds its own handler to do so.
    logging.getLogger("XGBoost-PySpark").setLevel(logging.WARNING)
    return SparkXGBClassifier(
        features_col="features",
        label_col="label",
        validation_indicator_col="is_validation",
        num_workers=spec.workers,
        n_estimators=spec.trees,
        max_depth=spec.depth,
        learning_rate=spec.rate,
        subsample=spec.subsample,
        early_stopping_rounds=spec.patience,
        random_state=spec.seed,
        tree_method="hist",
        device="cpu",
        verbosity=0,
        callbacks=[] if address is None else [RoundSender(address)],
    )


def _trees(fitted: Any) -> Trees:
    from ml_platform.training.tree_callback import flat_history

    booster = fitted.get_booster()
    summary = fitted.training_summary
    best = int(booster.best_iteration)
    history = flat_history(
        {"training": summary.train_objective_history, "validation": summary.validation_objective_history}
    )
    return Trees(model=bytes(booster[: best + 1].save_raw("ubj")), history=history, best_round=best)


def _labelled_rows(
    spark: SparkSession, train: Dataset, validation: Dataset, state: FeatureState, spec: XGBoostSpec
) -> DataFrame:
    """Both parts in one frame, `spec.workers` partitions, each with rows of both."""
    from pyspark.sql import functions as F  # noqa: N812

    from ml_platform.store.datasets import spark_frame

    frames = {
        name: spark_frame(spark, part).select("label", "features").where(F.col("label") >= 0)
        for name, part in (("train", train), ("validation", validation))
    }
    _check_classes(frames["train"], state)
    _check_rows(train, validation, spec)
    parts = [
        frames[name]
        .coalesce(max(1, part.rows // ROWS_PER_PARTITION))
        .mapInArrow(_Unpack(spec.workers, name == "validation"), _Unpack.schema)
        for name, part in (("train", train), ("validation", validation))
    ]
    # A shuffle even for one worker: a barrier stage may have neither a union nor a coalesce in it.
    dealt = parts[0].union(parts[1]).repartitionById(spec.workers, F.col("worker"))
    return dealt.sortWithinPartitions("is_validation", "partition", "position")


def _check_classes(train: DataFrame, state: FeatureState) -> None:
    """XGBoost takes its number of classes from the labels it meets: all of them must be there."""
    if len(state.classes) < 2:
        raise DataError("trees need two classes at least", got=", ".join(state.classes))
    there = {row[0] for row in train.select("label").distinct().collect()}
    absent = [name for index, name in enumerate(state.classes) if index not in there]
    if absent:
        raise DataError(
            f"class {absent[0]!r} has no row to train on",
            wanted=f"rows of all {len(state.classes)} classes",
            got=f"none of {', '.join(absent[:10])}",
            hint="leave out rows of rare classes, or deal the rows anew with another salt",
        )


def _check_rows(train: Dataset, validation: Dataset, spec: XGBoostSpec) -> None:
    fewest = min(train.rows, validation.rows)
    if fewest < spec.workers:
        raise DataError(
            "there are too few rows for the workers",
            wanted=f"{spec.workers} rows in each part, one per worker",
            got=f"train {train.rows}, validation {validation.rows}",
            hint="fewer `workers`",
        )


@dataclass(frozen=True)
class _Unpack:
    """What runs on executors: packed features become an array, and each row learns its worker."""

    workers: int
    validation: bool

    schema = (
        "label int, features array<float>, is_validation boolean, worker int, partition int, position bigint"
    )

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        partition = context.partitionId() if context else 0
        position = 0
        for batch in batches:
            yield self._unpack(batch, partition, position)
            position += batch.num_rows

    def _unpack(self, batch: pa.RecordBatch, partition: int, start: int) -> pa.RecordBatch:
        import numpy as np
        import pyarrow as pa

        rows = batch.num_rows
        position = np.arange(start, start + rows)
        columns = {
            "label": batch.column("label").cast(pa.int32()),
            "features": unpacked(batch.column("features")),
            "is_validation": pa.array(np.full(rows, self.validation)),
            "worker": pa.array(((position + partition) % self.workers).astype(np.int32)),
            "partition": pa.array(np.full(rows, partition, np.int32)),
            "position": pa.array(position, pa.int64()),
        }
        return pa.RecordBatch.from_pydict(columns)


def unpacked(packed: pa.Array) -> pa.ListArray:
    """Binary values of equal length as lists of float32.

    Args:
        packed: Binary or fixed-size binary without nulls; 4 little-endian bytes a value.
    """
    import numpy as np
    import pyarrow as pa

    rows = len(packed)
    width = len(packed[0].as_py()) // 4 if rows else 0
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * np.int32(width))
    if not width:
        return pa.ListArray.from_arrays(offsets, pa.array([], pa.float32()))
    fixed = packed.cast(pa.binary(4 * width))
    first = fixed.offset * width
    values = np.frombuffer(fixed.buffers()[1], np.float32)[first : first + rows * width]
    return pa.ListArray.from_arrays(offsets, pa.array(values))
