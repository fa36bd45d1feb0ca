"""Rows of any table on their way to the workers that boost trees: dealt evenly, in a fixed order, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError, SpecError
from ml_platform.specs.references import Dataset
from ml_platform.specs.trees import TreeColumns, TreeKind

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

ROWS_PER_PARTITION = 10_000
"""Parts are read in fewer partitions than this many rows each would make, so that rows reach every worker."""

NUMBERS = ("integer", "float", "decimal", "boolean")
_POSITION_BITS = 33
"""Spark's increasing ids hold the number of the partition above these bits, the row's place in them."""


@dataclass(frozen=True)
class DealtRows:
    """`frame` has a partition per worker; `columns` are XGBoost's parameters that name its columns."""

    frame: DataFrame
    columns: Mapping[str, str] = field(default_factory=dict)
    train_rows: int = 0
    validation_rows: int = 0


def deal_rows(
    spark: SparkSession, table: Dataset, columns: TreeColumns, kind: TreeKind, workers: int
) -> DealtRows:
    """Every worker gets rows to train on and, where some are held out, rows to validate on.

    Rows of a query stay together. The same table is dealt the same way each time.

    Raises:
        SpecError: A column is missing or of a wrong type, or belongs to another kind of trees.
        DataError: Too few rows or queries for the workers, a query in both parts, an empty or unfit label.
    """
    _check_columns(table, columns, kind)
    frame = _selected(spark, table, columns)
    frame = _by_query(frame, workers) if columns.query else _by_row(frame, table.rows, workers)
    order = ["is_validation", *(["query"] if columns.query else []), "partition", "position"]
    dealt = frame.repartitionById(workers, frame["worker"]).sortWithinPartitions(*order)
    train, validation = _check_parts(dealt, columns, kind, workers)
    return DealtRows(dealt, _parameters(columns), train, validation)


def feature_names(table: Dataset, columns: TreeColumns) -> tuple[str, ...]:
    """One name per input of the booster; a packed column has as many as it is wide."""
    first = table.contract[columns.features[0]]
    if first.type == "packed":
        return tuple(f"{first.name}[{number}]" for number in range(first.width or 0))
    return columns.features


def _check_columns(table: Dataset, columns: TreeColumns, kind: TreeKind) -> None:
    packed = [name for name in columns.features if table.contract[name].type == "packed"]
    if packed and len(columns.features) > 1:
        raise SpecError(
            f"packed column {packed[0]!r} must be the only feature", got=", ".join(columns.features)
        )
    numbers = [name for name in columns.features if name not in packed]
    numbers += [columns.label, *filter(None, (columns.weight, columns.base_margin))]
    for name in numbers:
        _check_type(table, name, NUMBERS)
    if columns.validation is not None:
        _check_type(table, columns.validation, ("boolean",))
    if (kind == "ranker") != (columns.query is not None):
        raise SpecError(
            f"a {kind} {'needs a' if kind == 'ranker' else 'takes no'} query column", got=columns.query
        )
    if columns.query is not None:
        _check_type(table, columns.query, (*NUMBERS, "string", "date"))
    if kind == "ranker" and columns.weight is not None:
        raise SpecError(
            "a ranker takes no weights: XGBoost counts them by query, its Spark estimator by row",
            got=columns.weight,
        )


def _check_type(table: Dataset, name: str, wanted: Iterable[str]) -> None:
    found = table.contract[name].type
    if found not in wanted:
        raise SpecError(f"column {name!r} has the wrong type", wanted=" or ".join(wanted), got=found)


def _selected(spark: SparkSession, table: Dataset, columns: TreeColumns) -> DataFrame:
    from pyspark.sql import functions as F  # noqa: N812

    from ml_platform.store.datasets import spark_frame

    frame = spark_frame(spark, table)
    if table.contract[columns.features[0]].type == "packed":
        features = _unpacked(columns.features[0])
    else:
        empty = F.lit(float("nan")).cast("float")
        features = F.array(*[F.coalesce(F.col(_quoted(n)).cast("float"), empty) for n in columns.features])
    held_out = F.lit(False) if columns.validation is None else F.col(_quoted(columns.validation))
    named = {"weight": columns.weight, "base_margin": columns.base_margin, "query": columns.query}
    others = [F.col(_quoted(name)).alias(alias) for alias, name in named.items() if name is not None]
    return frame.select(
        F.col(_quoted(columns.label)).cast("double").alias("label"),
        features.alias("features"),
        F.coalesce(held_out, F.lit(False)).alias("is_validation"),
        *others,
    )


def _unpacked(name: str) -> Column:
    """Packed float32 as an array."""
    import pandas as pd
    from pyspark.sql import functions as F  # noqa: N812
    from pyspark.sql.pandas.functions import pandas_udf

    def unpack(packed: pd.Series) -> pd.Series:
        import numpy as np

        return packed.map(lambda value: np.frombuffer(value, "<f4"))

    unpack.__annotations__ = {"packed": pd.Series, "return": pd.Series}
    array: Column = pandas_udf(unpack, "array<float>")(F.col(_quoted(name)))  # type: ignore[call-overload]
    return array


def _by_row(frame: DataFrame, rows: int, workers: int) -> DataFrame:
    """Train and validation rows dealt in turn, each for itself."""
    from pyspark.sql import functions as F  # noqa: N812

    ident = F.monotonically_increasing_id()
    few = frame.coalesce(max(1, rows // ROWS_PER_PARTITION))
    parts = [
        few.where(condition)
        .withColumn("partition", F.spark_partition_id())
        .withColumn("position", ident.bitwiseAND((1 << _POSITION_BITS) - 1))
        for condition in (~F.col("is_validation"), F.col("is_validation"))
    ]
    turn = F.pmod(F.col("position") + F.col("partition"), F.lit(workers)).cast("int")
    return parts[0].union(parts[1]).withColumn("worker", turn)


def _by_query(frame: DataFrame, workers: int) -> DataFrame:
    """Queries of each part dealt in turn, in their order; `query` becomes their number."""
    from pyspark.sql import Window, functions as F  # noqa: N812

    placed = frame.withColumn("partition", F.spark_partition_id()).withColumn(
        "position", F.monotonically_increasing_id()
    )
    if placed.where("query is null").limit(1).collect():
        raise DataError("rows belong to no query", wanted="a value in the query column of each row")
    queries = placed.select("query", "is_validation").distinct()
    twice = queries.groupBy("query").count().where("count > 1").limit(1).collect()
    if twice:
        raise DataError(
            f"query {twice[0]['query']!r} has rows to train on and rows to validate on",
            wanted="each query in one part",
        )
    in_order = Window.partitionBy("is_validation").orderBy("query")
    numbered = queries.withColumn("number", F.row_number().over(in_order) - 1)
    joined = placed.join(numbered, ["query", "is_validation"])
    return joined.withColumn("worker", F.pmod(F.col("number"), F.lit(workers)).cast("int")).withColumn(
        "query", F.col("number")
    )


def _check_parts(dealt: DataFrame, columns: TreeColumns, kind: TreeKind, workers: int) -> tuple[int, int]:
    """Rows of both parts, after a look at what every worker has."""
    from pyspark.sql import functions as F  # noqa: N812

    counted = dealt.groupBy("worker", "is_validation").agg(
        F.count("*").alias("rows"),
        F.count(F.when(F.col("label").isNull() | F.isnan("label"), 1)).alias("empty"),
        F.collect_set("label").alias("labels") if kind == "classifier" else F.lit(None).alias("labels"),
    )
    found = counted.collect()
    empty = sum(row["empty"] for row in found)
    if empty:
        raise DataError(f"{empty} rows have no label", wanted=f"a number in {columns.label!r}")
    rows = {(row["worker"], row["is_validation"]): row["rows"] for row in found}
    for held_out, name in ((False, "train on"), (True, "validate on")):
        without = [worker for worker in range(workers) if not rows.get((worker, held_out))]
        if without and (not held_out or columns.validation is not None):
            raise DataError(
                f"{len(without)} of {workers} workers would have no rows to {name}",
                wanted="rows of both parts for every worker",
                got=f"{_rows_of(rows, held_out)} rows in that part",
                hint="fewer `workers`, or another validation column",
            )
    if kind == "classifier":
        _check_classes(found)
    return _rows_of(rows, False), _rows_of(rows, True)


def _rows_of(rows: Mapping[tuple[int, bool], int], held_out: bool) -> int:
    return sum(count for (_, part), count in rows.items() if part == held_out)


def _check_classes(found: Iterable[Any]) -> None:
    """XGBoost takes its number of classes from the labels that it meets."""
    train = {label for row in found if not row["is_validation"] for label in row["labels"]}
    other = {label for row in found for label in row["labels"]} - train
    wanted = [float(number) for number in range(len(train))]
    if sorted(train) != wanted or len(train) < 2 or other:
        shown = ", ".join(f"{label:g}" for label in sorted(train)[:10])
        raise DataError(
            "labels of a classifier must be 0, 1, … without a gap",
            wanted="two classes or more, each with a row to train on",
            got=f"{shown} to train on" + (f"; only held out: {min(other):g}" if other else ""),
        )


def _parameters(columns: TreeColumns) -> dict[str, str]:
    named = {
        "validation_indicator_col": "is_validation" if columns.validation else None,
        "weight_col": "weight" if columns.weight else None,
        "base_margin_col": "base_margin" if columns.base_margin else None,
        "qid_col": "query" if columns.query else None,
    }
    return {parameter: name for parameter, name in named.items() if name is not None}


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
