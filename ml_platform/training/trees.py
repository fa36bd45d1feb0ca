"""Boosted trees on Spark executors, by `xgboost.spark`, from packed features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.errors import DataError
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import FeatureState
from ml_platform.specs.training import XGBoostSpec
from ml_platform.specs.trees import TreeKind
from ml_platform.store.spark_failures import spark_failures
from ml_platform.training.boosting import OnMetrics, Stop, Trees, boost
from ml_platform.training.learned import check_classes
from ml_platform.training.tree_rows import ROWS_PER_PARTITION

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession


def train_trees(
    spark: SparkSession,
    train: Dataset,
    validation: Dataset,
    state: FeatureState,
    spec: XGBoostSpec,
    *,
    on_metrics: OnMetrics | None = None,
    stop: Stop | None = None,
) -> Trees:
    """Train boosted trees with early stopping on the validation part.

    Each worker is one Spark task with `spark.task.cpus` threads. Rows reach a worker in the same order every
    time, so that the same spec gives the same trees.

    Args:
        train: Columns `label` (index of the class, or number) and `features` (packed, `state.width` values).
        validation: The same columns. Rows of classes that train does not know are left out.
        on_metrics: Called with each round's metrics and number, as rounds happen, each round once.
        stop: Given the validation losses up to now, whether to end. Asked after each round, on executors.
    Raises:
        DataError: There are fewer than two classes, or one without a row to train on.
        ResourceStartError: `device` is cuda and cannot be had.
        StoreError: The Spark job failed.
    """
    with spark_failures("training trees failed on Spark"):
        rows = labelled_rows(spark, train, validation, state, spec.workers)
        columns = {"validation_indicator_col": "is_validation"}
        if spec.class_weight == "balanced" and state.classes:
            rows = weighted(rows, state.balanced_weights)
            columns["weight_col"] = "weight"
        kind: TreeKind = "classifier" if state.target is None else "regressor"
        return boost(spark, rows, kind, spec, columns=columns, on_metrics=on_metrics, stop=stop)


def labelled_rows(
    spark: SparkSession, train: Dataset, validation: Dataset, state: FeatureState, workers: int
) -> DataFrame:
    """Both parts in one frame, a partition per worker, each with rows of both, in the same order each time.

    Returns:
        `label` (float), `features` (array<float>), `is_validation`, and how the rows were dealt.
    Raises:
        DataError: There are fewer than two classes, one without a row to train on, or too few rows.
    """
    from pyspark.sql import functions as F  # noqa: N812

    from ml_platform.store.datasets import spark_frame

    frames = {
        name: spark_frame(spark, part).select("label", "features")
        for name, part in (("train", train), ("validation", validation))
    }
    if state.target is None:
        frames = {name: frame.where(F.col("label") >= 0) for name, frame in frames.items()}
        check_classes({row[0] for row in frames["train"].select("label").distinct().collect()}, state)
    _check_rows(train, validation, workers)
    parts = [
        frames[name]
        .coalesce(max(1, part.rows // ROWS_PER_PARTITION))
        .mapInArrow(_Unpack(workers, name == "validation"), _Unpack.schema)
        for name, part in (("train", train), ("validation", validation))
    ]
    # A shuffle even for one worker: a barrier stage may have neither a union nor a coalesce in it.
    dealt = parts[0].union(parts[1]).repartitionById(workers, F.col("worker"))
    return dealt.sortWithinPartitions("is_validation", "partition", "position")


def weighted(rows: DataFrame, weights: tuple[float, ...]) -> DataFrame:
    """Rows to train on with the weight of their class; rows to validate on count alike."""
    from pyspark.sql import functions as F  # noqa: N812

    of_class = F.element_at(F.array(*map(F.lit, weights)), F.col("label").cast("int") + 1)
    return rows.withColumn("weight", F.when(F.col("is_validation"), F.lit(1.0)).otherwise(of_class))


def _check_rows(train: Dataset, validation: Dataset, workers: int) -> None:
    fewest = min(train.rows, validation.rows)
    if fewest < workers:
        raise DataError(
            "there are too few rows for the workers",
            wanted=f"{workers} rows in each part, one per worker",
            got=f"train {train.rows}, validation {validation.rows}",
            hint="fewer `workers`, or `partitions` of MLlib",
        )


@dataclass(frozen=True)
class _Unpack:
    """What runs on executors: packed features become an array, and each row learns its worker."""

    workers: int
    validation: bool

    schema = (
        "label float, features array<float>, is_validation boolean, worker int, "
        "partition int, position bigint"
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
            "label": batch.column("label").cast(pa.float32()),
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
