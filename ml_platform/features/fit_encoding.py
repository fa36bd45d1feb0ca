"""Fitting target encodings: exact counts per value, label and fold, in one pass over the columns concerned.

Folds follow from the row's own hash, so that they do not depend on files and partitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_platform.features.encoding import codes_of
from ml_platform.features.labels import label_names
from ml_platform.features.target import standardised
from ml_platform.features.values import category_values
from ml_platform.specs.problems import NumericTarget
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import FeatureSpec, TargetFeature
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

SEED = "fold"
UNIT = 2.0**-20
"""Of sums of standardised numbers: whole ones add up alike in any order."""
FARTHEST = 1e5
"""Standard deviations that one row counts at most."""
COUNTED = "feature int, fold int, value int, output int, rows bigint, total bigint"


def fold_of(frame: DataFrame, folds: int) -> Column:
    """The fold of each row, from 0. Rows that are alike lie in the same."""
    import pyspark.sql.functions as sf

    from ml_platform.store.fingerprint import row_hash

    return sf.pmod(row_hash(frame.schema, SEED), sf.lit(folds)).cast("int").alias("__fold")


def fit_encodings(
    spark: SparkSession,
    train: Dataset,
    vocabularies: Mapping[str, tuple[str, ...]],
    spec: FeatureSpec,
    labels: Mapping[str, int],
    target: NumericTarget | None,
) -> tuple[TargetFeature, ...]:
    """What the labels of each value are like, per fold, in one pass over these columns.

    Args:
        vocabularies: Values of each column that are told apart.
        labels: Rows of each class, in the order of the model's outputs. Empty: the label is a number.
    """
    from ml_platform.store.datasets import spark_frame
    from ml_platform.store.fingerprint import mapped, named

    if not vocabularies:
        return ()
    frame = spark_frame(spark, train)
    names = [*vocabularies, train.contract.label or ""]
    chosen = frame.select(*map(named, names), fold_of(frame, spec.target_folds))
    count = partial(_count, vocabularies=tuple(vocabularies.items()), classes=tuple(labels), target=target)
    with spark_failures("categories were not encoded by the label"):
        keys = ["feature", "fold", "value", "output"]
        sums = mapped(chosen, count, COUNTED).groupBy(*keys).sum("rows", "total").toArrow()
    found = [column.to_numpy() for column in sums.columns]
    return tuple(
        _feature(name, values, [column[found[0] == at] for column in found], spec, labels)
        for at, (name, values) in enumerate(vocabularies.items())
    )


def _count(
    batches: Iterator[pa.RecordBatch],
    *,
    vocabularies: tuple[tuple[str, tuple[str, ...]], ...],
    classes: tuple[str, ...],
    target: NumericTarget | None,
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        label, folds = batch.column(len(vocabularies)), batch.column(len(vocabularies) + 1).to_numpy()
        if target is None:
            output, total = codes_of(label_names(label), classes), np.ones(len(folds))
        else:
            number = np.clip(standardised(label, target).astype(np.float64), -FARTHEST, FARTHEST)
            output, total = np.zeros(len(folds), np.int64), np.rint(number / UNIT)
        for at, (name, vocabulary) in enumerate(vocabularies):
            value = codes_of(category_values(batch.column(at), name), vocabulary)
            known = value < len(vocabulary)
            keys, place = np.unique(
                np.stack([folds[known], value[known], output[known]]), axis=1, return_inverse=True
            )
            sums = np.bincount(place.ravel(), weights=total[known], minlength=keys.shape[1])
            rows = np.bincount(place.ravel(), minlength=keys.shape[1])
            columns = [np.full(keys.shape[1], at), *keys]
            arrays = [pa.array(column.astype(np.int32)) for column in columns]
            arrays += [pa.array(rows), pa.array(sums.astype(np.int64))]
            yield pa.RecordBatch.from_arrays(arrays, [part.split()[0] for part in COUNTED.split(", ")])


def _feature(
    name: str,
    values: tuple[str, ...],
    found: Sequence[NDArray[np.int64]],
    spec: FeatureSpec,
    labels: Mapping[str, int],
) -> TargetFeature:
    _, fold, value, output, rows, total = found
    shape = (spec.target_folds, len(values))
    all_rows, sums = np.zeros(shape, np.int64), np.zeros((max(1, len(labels)), *shape), np.int64)
    np.add.at(all_rows, (fold, value), rows)
    np.add.at(sums, (output, fold, value), total)
    # Of two classes one mean says both.
    first = 1 if len(labels) == 2 else 0
    everything = sum(labels.values())
    prior = tuple(count / everything for count in labels.values())[first:] or (0.0,)
    return TargetFeature(
        name=name,
        values=values,
        outputs=tuple(labels)[first:] or ("mean",),
        prior=prior,
        smoothing=spec.target_smoothing,
        unit=1.0 if labels else UNIT,
        rows=tuple(map(tuple, all_rows.tolist())),
        sums=tuple(tuple(map(tuple, each)) for each in sums[first:].transpose(1, 0, 2).tolist()),
    )
