"""Fitting features: one Spark pass of exact counts over the training part, the rest on the driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_platform.errors import DataError, SpecError, nearest
from ml_platform.features.counts import COUNTS_DDL, bin_values, count_batches, merged
from ml_platform.features.fit_target import fit_target
from ml_platform.features.labels import natural_order
from ml_platform.resources.progress import report
from ml_platform.specs.contracts import RAW_TYPES, Contract
from ml_platform.specs.problems import NumericTarget, ProblemKind
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import CategoryFeature, FeatureSpec, FeatureState, NumericFeature
from ml_platform.store.datasets import spark_frame
from ml_platform.store.fingerprint import named, numbered
from ml_platform.store.ranges import smallest_values
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def fit_features(
    spark: SparkSession, train: Dataset, spec: FeatureSpec, problem: ProblemKind = "multiclass"
) -> FeatureState:
    """What turns raw columns into features, learnt from the training part alone.

    The same rows give the same state bit for bit, however they are spread over files and partitions.
    Columns without a value, and columns with one value only, are left out.

    Raises:
        DataError: The part has no label, no rows, or no column is left to learn from.
        SpecError: `spec.drop` names a column that is not there.
    """
    label = _label(train.contract)
    names = _columns(train.contract, label, spec)
    offsets = smallest_values(train, [n for n in names if train.contract[n].type != "string"])
    named_classes = [] if problem == "regression" else [label]
    counts = _count(spark, train, [*names, *named_classes], offsets, label)
    numeric = [_numeric(counts[n], n, offsets[n], spec) for n in names if n in offsets]
    categories = [_category(counts[n], n, spec) for n in names if n not in offsets]
    state = _state(
        [each for each in numeric if each is not None],
        [each for each in categories if each is not None],
        {name: rows for of in named_classes for name, rows in _values(counts[of]).items()},
        label,
        None if named_classes else fit_target(train, label),
    )
    _report_left_out(names, state)
    return state


def _label(contract: Contract) -> str:
    if contract.label is None:
        raise DataError("features are fitted on a part with a label", got="a contract without one")
    return contract.label


def _columns(contract: Contract, label: str, spec: FeatureSpec) -> list[str]:
    for name in spec.drop:
        if name not in contract.names or name == label:
            known = contract.inputs().names
            raise SpecError(f"cannot drop column {name!r}: there is none", hint=nearest(name, known))
    dropped = {*spec.drop, label}
    return [c.name for c in contract.columns if c.name not in dropped and c.type in RAW_TYPES]


def _count(
    spark: SparkSession, train: Dataset, names: list[str], offsets: Mapping[str, float], label: str
) -> dict[str, pa.Table]:
    """The one pass. Returns the merged counts of each column."""
    frame = numbered(spark_frame(spark, train).select([named(name) for name in names]))
    count = partial(_count_partition, names=names, offsets=dict(offsets), label=label)
    with spark_failures("features were not fitted"):
        counts = merged(frame.mapInArrow(count, COUNTS_DDL).toArrow())
    return {name: counts.filter(pc.equal(counts["column"], at)) for at, name in enumerate(names)}


def _count_partition(
    batches: Iterator[pa.RecordBatch], *, names: list[str], offsets: dict[str, float], label: str
) -> Iterator[pa.RecordBatch]:
    yield from count_batches(batches, names, offsets, label)


def _numeric(counts: pa.Table, name: str, offset: float, spec: FeatureSpec) -> NumericFeature | None:
    """Fitted state of a numeric column; None when there is nothing to learn from it."""
    binned = counts.filter(pc.is_valid(counts["bin"]))
    values = bin_values(binned["bin"].to_numpy().astype(np.int64), offset)
    order = np.argsort(values, kind="stable")
    values, rows = values[order], binned["count"].to_numpy()[order]
    if len(values) < 2:
        return None
    center, deviation = _moments(values, rows)
    scaled = spec.scale == "standard"
    fill = {"median": _median(values, rows), "mean": center, "zero": 0.0}[spec.impute]
    return NumericFeature(
        name=name,
        fill=fill,
        center=center if scaled else 0.0,
        scale=deviation if scaled and deviation > 0 else 1.0,
    )


def _moments(values: NDArray[np.float64], rows: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and standard deviation of sorted values with their numbers of rows."""
    shares = rows / rows.sum()
    # Halved, so that the distance of two values near the end of the float64 range stays finite.
    mean = float((values * shares).sum())
    half = values / 2 - mean / 2
    largest = float(np.abs(half).max())
    if largest == 0:
        return mean, 0.0
    return mean, 2 * largest * float(np.sqrt((np.square(half / largest) * shares).sum()))


def _median(values: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
    """The lower of the two middle rows, when there are two."""
    middle = (int(rows.sum()) - 1) // 2
    return float(values[np.searchsorted(np.cumsum(rows), middle, side="right")])


def _category(counts: pa.Table, name: str, spec: FeatureSpec) -> CategoryFeature | None:
    """Fitted state of a category; None when every row is alike."""
    values = _values(counts)
    missing = pc.sum(counts.filter(pc.is_null(counts["value"]))["count"]).as_py() or 0
    if not values or (len(values) == 1 and missing == 0):
        return None
    frequent = sorted(values.items(), key=lambda item: (-item[1], item[0]))[: spec.vocabulary]
    return CategoryFeature(name=name, values=tuple(value for value, _ in frequent))


def _values(counts: pa.Table) -> dict[str, int]:
    valued = counts.filter(pc.is_valid(counts["value"]))
    return dict(zip(valued["value"].to_pylist(), valued["count"].to_pylist(), strict=True))


def _state(
    numeric: list[NumericFeature],
    categories: list[CategoryFeature],
    labels: dict[str, int],
    label: str,
    target: NumericTarget | None,
) -> FeatureState:
    if not labels and target is None:
        raise DataError("features cannot be fitted: the training part has no labels", wanted="labelled rows")
    if not numeric and not categories:
        raise DataError(
            "no column is left to learn from",
            wanted="a column with at least two values",
            got="columns that are empty, constant or dropped",
        )
    classes = natural_order(labels)
    return FeatureState(
        numeric=tuple(numeric),
        categories=tuple(categories),
        classes=classes,
        class_counts=tuple(labels[name] for name in classes),
        target=target,
        label=label,
    )


def _report_left_out(names: list[str], state: FeatureState) -> None:
    left_out = [name for name in names if name not in state.columns]
    if left_out:
        shown = ", ".join(left_out[:10]) + (", …" if len(left_out) > 10 else "")
        report(f"left out {len(left_out)} columns that are empty or constant: {shown}")
