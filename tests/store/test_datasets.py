"""Data sets written by Spark: typed, fingerprinted, all or nothing."""

from __future__ import annotations

import datetime as dt
import decimal
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ml_platform.errors import DataError, StoreError
from ml_platform.store.datasets import (
    dataset_files,
    open_dataset,
    read_table,
    remove_dataset,
    spark_frame,
    write_dataset,
)
from ml_platform.store.folders import local_path
from ml_platform.store.location import data_uri

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

DDL = (
    "b byte, i int, l long, f float, d double, m decimal(10,2), t boolean, s string, day date, at timestamp, "
    "wall timestamp_ntz, raw binary, xs array<int>, kv map<string,int>, `odd name.with ``ticks` string"
)
TYPES = (
    "integer integer integer float float decimal boolean string date timestamp timestamp "
    "binary list map string"
)
ROW: tuple[Any, ...] = (
    1, 2, 3, 0.5, 0.25, decimal.Decimal("1.50"), True, "ü", dt.date(1, 1, 1),
    dt.datetime(2020, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999),  # noqa: DTZ001
    b"\0x", [1, None], {"k": None}, "x",
)  # fmt: skip


def leftovers() -> list[str]:
    root = local_path(data_uri())
    return sorted(path.name for path in root.rglob("*") if ".tmp-" in path.name or ".gone-" in path.name)


def folders(name: str) -> list[Path]:
    return list((local_path(data_uri()) / name).glob("*"))


def test_every_type_comes_back_as_it_was(spark: SparkSession) -> None:
    rows = [ROW, tuple(None for _ in ROW)]
    frame = spark.createDataFrame(rows, DDL)
    dataset = write_dataset(frame, name="types", label="s")
    assert [column.type for column in dataset.contract.columns] == TYPES.split()
    assert dataset.contract.label == "s"
    assert dataset.rows == 2
    back = spark_frame(spark, dataset)
    assert back.schema == frame.schema
    assert sorted(back.collect(), key=str) == sorted(frame.collect(), key=str)
    table = read_table(dataset)
    assert table.column_names == frame.columns
    assert table["at"].to_pylist()[0] == ROW[9] or table["at"].to_pylist()[1] == ROW[9]
    assert open_dataset(dataset.uri) == dataset


def test_nulls_are_observed_not_declared(spark: SparkSession) -> None:
    """Spark's own flag says "may be null" of almost everything that was read from a file."""
    frame = spark.createDataFrame([(1, None), (2, "x")], "whole int, holes string")
    contract = write_dataset(frame, name="nulls").contract
    assert (contract["whole"].nullable, contract["holes"].nullable) == (False, True)


def test_packed_columns_are_viewed_in_place(spark: SparkSession) -> None:
    import numpy as np

    values = np.arange(6, dtype="<f4").reshape(2, 3)
    frame = spark.createDataFrame([(0, values[0].tobytes()), (1, values[1].tobytes())], "label int, x binary")
    dataset = write_dataset(frame.coalesce(1), name="packed", packed={"x": 3})
    column = read_table(dataset)["x"].chunk(0)
    assert np.array_equal(np.frombuffer(column.buffers()[1], "<f4").reshape(-1, 3), values)
    assert (dataset.contract["x"].type, dataset.contract["x"].width) == ("packed", 3)
    assert [bytes(row.x) for row in spark_frame(spark, dataset).orderBy("label").collect()] == [
        values[0].tobytes(),
        values[1].tobytes(),
    ]


def test_empty_partitions_leave_no_file_and_names_follow_partitions(spark: SparkSession) -> None:
    frame = spark.range(0, 4, 1, 4).where("id % 2 = 1")
    dataset = write_dataset(frame, name="sparse")
    names = [Path(file.uri).name for file in dataset_files(dataset)]
    assert names == ["part-00001.parquet", "part-00003.parquet"]
    assert read_table(dataset)["id"].to_pylist() == [1, 3]


def test_an_empty_frame_is_a_typed_data_set(spark: SparkSession) -> None:
    frame = spark.createDataFrame([], DDL)
    dataset = write_dataset(frame, name="empty")
    assert (dataset.rows, dataset_files(dataset)) == (0, ())
    assert spark_frame(spark, dataset).schema == frame.schema
    assert spark_frame(spark, dataset).count() == 0
    assert read_table(dataset).schema.names == frame.columns


def test_layout_does_not_change_the_fingerprint_but_a_cell_does(spark: SparkSession) -> None:
    frame = spark.range(1000).selectExpr("id", "id % 7 as k", "sqrt(id) as x")
    first = write_dataset(frame, name="layout")
    again = write_dataset(frame.repartition(7).select("x", "k", "id"), name="layout")
    edited = write_dataset(frame.selectExpr("id", "if(id = 500, 8, k) as k", "x"), name="layout")
    assert first.fingerprint == again.fingerprint
    assert first.uri != again.uri
    assert edited.fingerprint != first.fingerprint


def test_a_sort_and_a_shuffle_do_not_count_rows_twice(spark: SparkSession) -> None:
    """`observe` above a sort would; the writer puts it last."""
    frame = spark.range(0, 20_000, 1, 4).repartition(3).orderBy("id")
    assert write_dataset(frame, name="sorted").rows == 20_000


def test_what_a_worker_raises_arrives_and_nothing_is_left(spark: SparkSession) -> None:
    def fails(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from ml_platform.errors import DataError as Raised

        for batch in batches:
            if batch.column(0)[0].as_py() >= 50:
                raise Raised("row 50 is bad", wanted="good rows", got="a bad one", hint="mend it")
            yield batch

    frame = spark.range(0, 100, 1, 2).mapInArrow(fails, "id long")
    with pytest.raises(DataError) as raised:
        write_dataset(frame, name="failing")
    said = (raised.value.what, raised.value.got, raised.value.hint)
    assert said == ("row 50 is bad", "a bad one", "mend it")
    assert not folders("failing")
    assert not leftovers()


def test_a_value_of_another_width_fails_and_nothing_is_left(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(b"12",)], "x binary")
    with pytest.raises(DataError, match="'x' does not hold"):
        write_dataset(frame, name="narrow", packed={"x": 3})
    assert not folders("narrow")


def test_other_failures_of_the_job_are_store_errors_that_say_why(spark: SparkSession) -> None:
    with pytest.raises(StoreError, match=r"'division' was not written(.|\n)*DIVIDE_BY_ZERO"):
        write_dataset(spark.range(3).selectExpr("1 div id as x"), name="division")
    assert not folders("division")


def test_a_store_that_cannot_be_written_is_named(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ML_PLATFORM_STORE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"cannot be written to file://(.|\n)*NotADirectoryError"):
        write_dataset(spark.range(1), name="x")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["id", "id as ID"], "same name(.|\n)*ID, id"),
        (["struct(id) as s"], r"cannot store column 's'(.|\n)*struct<id:bigint>"),
        (["null as n"], r"cannot store column 'n'"),
    ],
)
def test_columns_that_cannot_be_stored_are_named(
    spark: SparkSession, columns: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_dataset(spark.range(1).selectExpr(*columns), name="unfit")


def test_an_observed_count_that_differs_from_the_footers_is_not_committed(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a lost executor does to `observe`: here the count is made to lie, the files are real."""
    import pyspark.sql.functions as sf

    from ml_platform.store import fingerprint

    honest = fingerprint.aggregates
    lie = (sf.count(sf.lit(1)) + 1).alias("rows")
    monkeypatch.setattr(fingerprint, "aggregates", lambda: [lie, *honest()[1:]])
    with pytest.raises(StoreError, match=r"3 rows, as in the files(.|\n)*4 rows observed"):
        write_dataset(spark.range(3), name="lost")
    assert not folders("lost")
    assert not leftovers()


def test_a_removed_data_set_is_gone(spark: SparkSession) -> None:
    dataset = write_dataset(spark.range(3), name="removed")
    remove_dataset(dataset)
    remove_dataset(dataset)
    with pytest.raises(StoreError, match="there is no data set"):
        spark_frame(spark, dataset)


def test_special_floats_come_back(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(math.nan,), (math.inf,), (-math.inf,), (1e308,)], "x double")
    values = read_table(write_dataset(frame, name="floats"))["x"].to_pylist()
    assert math.isnan(values[0])
    assert sorted(values[1:]) == [-math.inf, 1e308, math.inf]
