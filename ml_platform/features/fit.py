"""Fitting features: one Spark pass of exact counts over the training part, the rest on the driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_platform.data.classes import MOST_CLASSES
from ml_platform.errors import DataError, SpecError
from ml_platform.features.counts import COUNTS_DDL, Counted, bin_values, count_batches, part_counts
from ml_platform.features.fit_encoding import fit_encodings
from ml_platform.features.fit_target import fit_target
from ml_platform.features.labels import natural_order
from ml_platform.features.statistics import is_skewed, moments, quantile, signed_log, spread
from ml_platform.features.times import PARTS, SECONDS_PER_DAY, day_of, midnight
from ml_platform.features.treatments import Treated, treated_columns
from ml_platform.resources.progress import report
from ml_platform.specs.contracts import Contract
from ml_platform.specs.problems import NumericTarget, ProblemKind
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import (
    CategoryFeature,
    Feature,
    FeatureSpec,
    FeatureState,
    Interaction,
    NumericFeature,
    TargetFeature,
    TextFeature,
    TimeFeature,
)
from ml_platform.store.datasets import spark_frame
from ml_platform.store.fingerprint import mapped
from ml_platform.store.ranges import smallest_values
from ml_platform.store.spark_failures import spark_failures
from ml_platform.store.sql import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MOST_PRODUCTS = 1024
LARGEST_OFFSET = 2.0**64
"""Beyond it, distances from the smallest value would be alike for all others."""

ORDER = [(name, "ascending") for name in ("column", "bin", "value")]
Counts = Mapping[tuple[str, str], pa.Table]
"""Rows of `COUNTS` by the column's name and by what was counted."""


def fit_features(
    spark: SparkSession, train: Dataset, spec: FeatureSpec, problem: ProblemKind = "multiclass"
) -> FeatureState:
    """What turns raw columns into features, learnt from the training part alone.

    The same rows give the same state bit for bit, however they are spread over files and partitions.
    Columns without a value, and columns whose rows are all alike, are left out.

    Raises:
        DataError: The part has no label, no rows, or no column is left to learn from.
        SpecError: `spec` names a column that is not there, or a treatment that does not fit a column's type.
    """
    label = _label(train.contract)
    treated = treated_columns(train.contract, spec)
    offsets = _offsets(train, [each.name for each in treated if each.treat in {"number", "time"}])
    wanted = [counted for each in treated for counted in _wanted(each, offsets)]
    classes = [] if problem == "regression" else [Counted(label, "labels", keep=MOST_CLASSES)]
    counts = _count(spark, train, [*wanted, *classes])
    fitted = [_fitted(each, counts, train.contract, offsets) for each in treated]
    found = [each for each in fitted if each is not None]
    labels = _values(counts[label, "labels"]) if classes else {}
    target = None if classes else fit_target(train, label)
    by_label = {each.name for each in treated if each.treat == "target"}
    listed = [each for each in found if isinstance(each, CategoryFeature) and each.name in by_label]
    vocabularies = {each.name: each.values for each in listed}
    in_order = {name: labels[name] for name in natural_order(labels)}
    encoded = fit_encodings(spark, train, vocabularies, spec, in_order, target)
    kept = [each for each in found if each.name not in by_label]
    state = _state([*kept, *encoded], labels, label, spec, target)
    if encoded:
        state = state.model_copy(update={"fitted_on": train.fingerprint})
    _report_left_out([each.name for each in treated], state)
    return state


def _label(contract: Contract) -> str:
    if contract.label is None:
        raise DataError("features are fitted on a part with a label", got="a contract without one")
    return contract.label


def _offsets(train: Dataset, names: Sequence[str]) -> dict[str, float]:
    smallest = smallest_values(train, names)
    return {name: value if abs(value) < LARGEST_OFFSET else 0.0 for name, value in smallest.items()}


def _wanted(each: Treated, offsets: Mapping[str, float]) -> Iterator[Counted]:
    if each.treat in {"category", "target", "text"}:
        what: Literal["values", "hashes"] = "hashes" if each.treat == "text" else "values"
        yield Counted(each.name, what, keep=each.vocabulary)
        return
    yield Counted(each.name, "numbers", offsets[each.name])
    if each.treat == "time":
        yield Counted(each.name, "parts")


def _count(spark: SparkSession, train: Dataset, wanted: Sequence[Counted]) -> Counts:
    """The one pass. Returns the merged counts of each counter."""
    names = list(dict.fromkeys(each.name for each in wanted))
    frame = spark_frame(spark, train).selectExpr(*map(quoted, names))
    count = partial(_count_partition, names=names, wanted=tuple(wanted))
    limit = max((each.keep for each in wanted), default=0)
    with spark_failures("features were not fitted"):
        counts = _merged(mapped(frame, count, COUNTS_DDL), limit).toArrow().sort_by(ORDER)
    ends = np.searchsorted(counts["column"].to_numpy(), np.arange(len(wanted) + 1)).tolist()
    return {
        (each.name, each.what): counts.slice(ends[at], ends[at + 1] - ends[at])
        for at, each in enumerate(wanted)
    }


def _merged(counted: DataFrame, limit: int) -> DataFrame:
    """Counts of all partitions added up, and of each column of values the most frequent ones.

    Adding up happens on executors: neither partitions nor values make this process grow.

    Returns:
        Rows of `COUNTS`, and `distinct`: how many values the column has.
    """
    import pyspark.sql.functions as sf
    from pyspark.sql import Window

    total = counted.groupBy("column", "bin", "value").agg(sf.sum("count").alias("count"))
    whole = Window.partitionBy("column")
    ranked = total.withColumns(
        {
            "rank": sf.row_number().over(whole.orderBy(sf.desc("count"), "value")),
            "distinct": sf.count("value").over(whole),
        }
    )
    # One more: rows without a value have a rank, too.
    return ranked.where(sf.col("value").isNull() | (sf.col("rank") <= limit + 1)).drop("rank")


def _count_partition(
    batches: Iterator[pa.RecordBatch], *, names: list[str], wanted: tuple[Counted, ...]
) -> Iterator[pa.RecordBatch]:
    yield from count_batches(batches, names, wanted)


def _fitted(
    each: Treated, counts: Counts, contract: Contract, offsets: Mapping[str, float]
) -> Feature | None:
    """Fitted state of a column; None when there is nothing to learn from it."""
    if each.treat in {"category", "target"}:
        return _category(counts[each.name, "values"], each)
    if each.treat == "text":
        return _text(counts[each.name, "hashes"], each)
    numbers = counts[each.name, "numbers"]
    values, rows = _numbers(numbers, offsets[each.name])
    missing = _missing_rows(numbers)
    if len(values) == 0 or (len(values) == 1 and not (missing and each.missing_flag)):
        return None
    if each.treat == "number":
        return _numeric(each, values, rows, missing_flag=each.missing_flag and missing > 0)
    if contract[each.name].type == "date":
        values = values * SECONDS_PER_DAY
    parts = counts[each.name, "parts"]
    return _time(each, values, rows, parts, missing_flag=each.missing_flag and missing > 0)


def _numbers(counts: pa.Table, offset: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distinct values, sorted, and the rows of each."""
    binned = counts.filter(pc.is_valid(counts["bin"]))
    values = bin_values(binned["bin"].to_numpy().astype(np.int64), offset)
    order = np.argsort(values, kind="stable")
    return values[order], binned["count"].to_numpy()[order]


def _missing_rows(counts: pa.Table) -> int:
    without = counts.filter(pc.and_(pc.is_null(counts["bin"]), pc.is_null(counts["value"])))
    return int(pc.sum(without["count"]).as_py() or 0)


def _numeric(
    each: Treated, values: NDArray[np.float64], rows: NDArray[np.int64], *, missing_flag: bool
) -> NumericFeature:
    log = each.log == "always" or (each.log == "skewed" and is_skewed(values, rows))
    center, scale = spread(signed_log(values) if log else values, rows, each.scale)
    fill = {
        "median": lambda: quantile(values, rows, 0.5),
        "mean": lambda: moments(values, rows)[0],
        "zero": lambda: 0.0,
    }[each.impute]()
    return NumericFeature(
        name=each.name, fill=fill, log=log, center=center, scale=scale, missing_flag=missing_flag
    )


def _time(
    each: Treated,
    seconds: NDArray[np.float64],
    rows: NDArray[np.int64],
    parts: pa.Table,
    *,
    missing_flag: bool,
) -> TimeFeature:
    reference = day_of(float(seconds[-1]))
    ages = (midnight(reference) - seconds)[::-1] / SECONDS_PER_DAY
    age_center, age_scale = spread(ages, rows[::-1], each.scale)
    years, rows_of_years = part_counts(parts, "year")
    year_center, year_scale = spread(years.astype(np.float64), rows_of_years, each.scale)
    return TimeFeature(
        name=each.name,
        parts=tuple(part for part in PARTS if len(part_counts(parts, part)[0]) > 1),
        year_center=year_center,
        year_scale=year_scale,
        reference=reference,
        age_center=age_center,
        age_scale=age_scale,
        missing_flag=missing_flag,
    )


def _category(counts: pa.Table, each: Treated) -> CategoryFeature | None:
    values = _values(counts)
    if not values or (len(values) == 1 and _missing_rows(counts) == 0):
        return None
    frequent = sorted(values.items(), key=lambda item: (-item[1], item[0]))[: each.vocabulary]
    many = pc.max(counts["distinct"]).as_py() > each.hash_above
    buckets = each.buckets if many else 1
    return CategoryFeature(name=each.name, values=tuple(value for value, _ in frequent), buckets=buckets)


def _text(counts: pa.Table, each: Treated) -> TextFeature | None:
    different = len(counts.filter(pc.is_valid(counts["bin"])))
    if different == 0 or (different == 1 and _missing_rows(counts) == 0):
        return None
    return TextFeature(name=each.name, buckets=each.buckets, pieces=each.pieces)


def _interactions(features: Sequence[Feature], spec: FeatureSpec) -> Iterator[Interaction]:
    by_name = {feature.name: feature for feature in features}
    for left, right in spec.interactions:
        if left not in by_name or right not in by_name:
            report(f"left out the interaction of {left} and {right}: one of them is empty or constant")
            continue
        one, other = by_name[left], by_name[right]
        products = one.width * other.width
        both = isinstance(one, CategoryFeature) and isinstance(other, CategoryFeature)
        if products > MOST_PRODUCTS and not both:
            raise SpecError(
                f"the interaction of {left!r} and {right!r} is too wide",
                wanted=f"at most {MOST_PRODUCTS} products of features",
                got=f"{one.width} × {other.width} = {products}",
                hint="fewer features of one of them: features.columns.NAME.vocabulary or .buckets",
            )
        buckets = MOST_PRODUCTS if products > MOST_PRODUCTS else None
        yield Interaction(left=left, right=right, buckets=buckets)


def _values(counts: pa.Table) -> dict[str, int]:
    valued = counts.filter(pc.is_valid(counts["value"]))
    return dict(zip(valued["value"].to_pylist(), valued["count"].to_pylist(), strict=True))


def _state(
    features: Sequence[Feature],
    labels: dict[str, int],
    label: str,
    spec: FeatureSpec,
    target: NumericTarget | None,
) -> FeatureState:
    if not labels and target is None:
        raise DataError("features cannot be fitted: the training part has no labels", wanted="labelled rows")
    if not features:
        raise DataError(
            "no column is left to learn from",
            wanted="a column with at least two values",
            got="columns that are empty, constant or dropped",
        )
    classes = natural_order(labels)
    return FeatureState(
        numeric=tuple(each for each in features if isinstance(each, NumericFeature)),
        times=tuple(each for each in features if isinstance(each, TimeFeature)),
        categories=tuple(each for each in features if isinstance(each, CategoryFeature)),
        texts=tuple(each for each in features if isinstance(each, TextFeature)),
        targets=tuple(each for each in features if isinstance(each, TargetFeature)),
        interactions=tuple(_interactions(features, spec)),
        classes=classes,
        class_counts=tuple(labels[name] for name in classes),
        target=target,
        label=label,
    )


def _report_left_out(names: list[str], state: FeatureState) -> None:
    left_out = [name for name in names if name not in state.columns]
    if left_out:
        shown = ", ".join(left_out[:10]) + (", …" if len(left_out) > 10 else "")
        columns = f"{len(left_out)} columns that are" if left_out[1:] else "1 column that is"
        report(f"left out {columns} empty or constant: {shown}")
