"""Fingerprints: equal exactly when the rows are."""

from __future__ import annotations

import datetime as dt
import json
import math
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

DDL = (
    "a int, b int, s string, t string, x double, xs array<int>, nested array<array<int>>, "
    "pair struct<l: int, r: int>, m map<string, double>, at array<timestamp>"
)
NOON = dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC)
INTS = [None, 0, 1]
TEXTS = [None, "", "a", "null", '["a"]']
COLUMNS: dict[str, list[Any]] = {
    "a": INTS,
    "b": INTS,
    "s": TEXTS,
    "t": TEXTS,
    "x": [None, 0.0, -0.0, math.nan, math.inf, 0.5],
    "xs": [None, [], [None], [1], [1, None], [None, 1], [1, 1]],
    "nested": [None, [], [[]], [[1], [2]], [[1, 2]], [[1, 2], []], [None, [1, 2]]],
    "pair": [None, (None, None), (1, None), (None, 1)],
    "m": [None, {}, {"a": None}, {"a": -0.0}, {"a": 0.0}, {"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}],
    "at": [None, [NOON], [NOON + dt.timedelta(microseconds=1)], [NOON, None]],
}
SIMPLE: dict[str, Any] = dict.fromkeys(COLUMNS)


def rows() -> st.SearchStrategy[dict[str, Any]]:
    """Rows that differ in one or two columns, so that near misses are the rule."""
    names = st.sampled_from(sorted(COLUMNS))
    changes = st.dictionaries(names, st.integers(0, 7), min_size=1, max_size=2)
    return changes.map(
        lambda chosen: SIMPLE | {name: COLUMNS[name][at % len(COLUMNS[name])] for name, at in chosen.items()}
    )


def canonical(value: Any) -> Any:
    """What Spark holds equal: -0.0 and 0.0, every NaN, maps in any order."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value + 0.0
    if isinstance(value, dict):
        return sorted((key, canonical(item)) for key, item in value.items())
    return [canonical(item) for item in value] if isinstance(value, list | tuple) else value


def content(table: list[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps(canonical(list(row.values())), default=str) for row in table)


def digests(spark: SparkSession, tables: list[list[dict[str, Any]]]) -> list[str]:
    """Fingerprints of many tables in one job."""
    from pyspark.sql.types import IntegerType, StructType

    from ml_platform.store.fingerprint import aggregates, digest, hash_columns

    schema = StructType.fromDDL(DDL)
    keyed = StructType([*schema.fields]).add("table", IntegerType())
    data = [(*row.values(), at) for at, table in enumerate(tables) for row in table]
    frame = spark.createDataFrame(data, keyed).withColumns(hash_columns(schema))
    folded = frame.groupBy("table").agg(*aggregates()).collect()
    found = {row["table"]: digest(schema, row.asDict()) for row in folded}
    return [found[at] for at in range(len(tables))]


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(tables=st.lists(st.lists(rows(), min_size=1, max_size=3), min_size=100, max_size=150))
def test_fingerprints_are_equal_exactly_when_the_rows_are(
    spark: SparkSession, tables: list[list[dict[str, Any]]]
) -> None:
    """Swapped columns, moved nulls, nested boundaries, duplicates and single cells all show."""
    found: dict[str, Counter[str]] = {}
    for table, fingerprint in zip(tables, digests(spark, tables), strict=True):
        assert found.setdefault(fingerprint, content(table)) == content(table)
    assert len(found) == len({json.dumps(sorted(content(table).items())) for table in tables})


def test_each_single_value_has_a_fingerprint_of_its_own(spark: SparkSession) -> None:
    """The whole list of near misses, column by column, whatever hypothesis draws."""
    tables = [[SIMPLE | {name: value}] for name, values in COLUMNS.items() for value in values]
    by_content: dict[str, set[str]] = {}
    for table, fingerprint in zip(tables, digests(spark, tables), strict=True):
        by_content.setdefault(str(content(table)), set()).add(fingerprint)
    assert all(len(same) == 1 for same in by_content.values())
    assert len(set.union(*by_content.values())) == len(by_content)


def test_order_of_rows_and_columns_and_partitions_do_not_matter(spark: SparkSession) -> None:
    table = [SIMPLE | {"a": at % 3, "s": str(at), "x": at / 7} for at in range(200)]
    shuffled = random.Random(3).sample(table, len(table))
    names = list(COLUMNS)
    first = fingerprint_of(spark.createDataFrame(table, DDL))
    for partitions in (1, 3, 7):
        frame = spark.createDataFrame(shuffled, DDL).repartition(partitions).select(*reversed(names))
        assert fingerprint_of(frame) == first


def test_a_duplicate_row_shows_though_bit_xor_cancels_it(spark: SparkSession) -> None:
    one, three = spark.range(5).select("id"), spark.range(5).select("id")
    assert fingerprint_of(one) != fingerprint_of(one.union(three).union(three))


def test_hashes_are_summed_exactly(spark: SparkSession) -> None:
    """In halves; a sum that wrapped would still be a number."""
    from ml_platform.store.fingerprint import SEEDS, _sum, aggregates, hash_columns

    frame = spark.range(1000).withColumns(hash_columns(spark.range(1).schema))
    observed = frame.agg(*aggregates()).collect()[0].asDict()
    rows = frame.collect()
    for seed in SEEDS:
        assert _sum(observed, seed) == sum(row[f"__row_hash_{seed}"] for row in rows)


def test_types_and_names_count_and_an_empty_table_has_a_fingerprint(spark: SparkSession) -> None:
    frame = spark.range(3)
    empty = frame.where("id < 0")
    variants = [
        frame,
        frame.selectExpr("cast(id as int) id"),
        frame.selectExpr("id as ID2"),
        empty,
        empty.selectExpr("cast(id as int) id"),
    ]
    assert len({fingerprint_of(variant) for variant in variants}) == len(variants)


def test_key_hash_survives_a_wider_type(spark: SparkSession) -> None:
    """One fraction appended to a file makes its whole-number column a float column."""
    from ml_platform.store.fingerprint import key_hash

    def hashes(*columns: str) -> list[int]:
        frame = spark.range(5).selectExpr(*columns)
        return [row[0] for row in frame.select(key_hash(frame.schema.fields, "salt")).collect()]

    whole = hashes("cast(id as int) k", "date'2020-01-01' d")
    wider = hashes("cast(id as double) k", "timestamp'2020-01-01 00:00:00' d")
    assert whole == wider == hashes("id k", "date'2020-01-01' d")
    assert whole != hashes("id + 1 as k", "date'2020-01-01' d")


def fingerprint_of(frame: DataFrame) -> str:
    from ml_platform.store.fingerprint import aggregates, digest, hash_columns

    folded = frame.withColumns(hash_columns(frame.schema)).agg(*aggregates()).first()
    assert folded is not None
    return digest(frame.schema, folded.asDict())
