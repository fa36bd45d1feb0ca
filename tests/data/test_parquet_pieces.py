"""Parquet that tasks read with Arrow is what Spark reads; what Arrow reads otherwise is left to Spark."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyarrow import parquet

from ml_platform.data import load, parquet_source
from ml_platform.data.load import load_table
from ml_platform.data.parquet_pieces import SPARK_VERSION, parquet_pieces
from ml_platform.errors import DataError
from ml_platform.specs.references import Table
from tests.data.conftest import nothing_is_left

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 600
NOON = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
LONG_AGO = NOON.replace(year=1904, tzinfo=None)


def column(kind: pa.DataType, value: Callable[[int], object]) -> pa.Array:
    """With a null in every eleventh row."""
    return pa.array([None if at % 11 == 3 else value(at) for at in range(ROWS)], kind)


COLUMNS = {
    "tiny": column(pa.int8(), lambda at: at % 100 - 50),
    "small": column(pa.int16(), lambda at: at),
    "int": column(pa.int32(), lambda at: -at),
    "long": column(pa.int64(), lambda at: 2**60 + at),
    "single": column(pa.float32(), lambda at: float("nan") if at % 5 == 0 else at / 3),
    "double": column(pa.float64(), lambda at: [-0.0, float("inf"), 1e308, at / 7][at % 4]),
    "cents": column(pa.decimal128(12, 2), lambda at: Decimal(at) / 4),
    "flag": column(pa.bool_(), lambda at: at % 3 == 0),
    "text": column(pa.string(), lambda at: ["", " ", "ünï", "x" * at][at % 4]),
    "long text": column(pa.large_string(), lambda at: f"a.{at % 7}`"),
    "day": column(pa.date32(), lambda at: dt.date(1, 1, 1) + dt.timedelta(days=6000 * at)),
    "at": column(pa.timestamp("us", "UTC"), lambda at: NOON + dt.timedelta(microseconds=at)),
    "berlin": column(pa.timestamp("ms", "Europe/Berlin"), lambda at: NOON + dt.timedelta(hours=at)),
    "wall": column(pa.timestamp("us"), lambda at: LONG_AGO + dt.timedelta(days=at)),
    "wall.ms": column(pa.timestamp("ms"), lambda at: LONG_AGO + dt.timedelta(days=300 * at)),
    "label": column(pa.string(), lambda at: ["yes", "no", " "][at % 50 % 3]),
}
NOT_PLAIN = {
    "beyond": column(pa.uint64(), lambda at: 2**63 + at),
    "nanos": column(pa.timestamp("ns"), lambda at: at),
    "list": column(pa.list_(pa.int64()), lambda at: [at]),
    "bytes": column(pa.binary(), lambda at: b"a"),
    "struct": column(pa.struct([("a", pa.int64())]), lambda at: {"a": at}),
}


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_source, "SMALL_BYTES", 0)


def write(folder: Path, columns: dict[str, pa.Array], **options: object) -> Path:
    """Two files; of the first the row groups are small, and the last is empty."""
    folder.mkdir()
    table = pa.table(columns)
    parquet.write_table(table.slice(0, 450), folder / "a.parquet", row_group_size=100, **options)
    parquet.write_table(table.slice(450), folder / "b.parquet", **options)
    parquet.write_table(table.slice(0, 0), folder / "c.parquet", **options)
    return folder


def alike(spark: SparkSession, source: Path, label: str, monkeypatch: pytest.MonkeyPatch) -> Table:
    table = load_table(spark, str(source), label)
    with monkeypatch.context() as patch:
        patch.setattr(load, "_read_directly", lambda *_: None)
        other = load_table(spark, str(source), label)
    assert table.data.fingerprint == other.data.fingerprint
    assert table.data.contract == other.data.contract
    assert (table.quarantined, table.profile, table.notes) == (other.quarantined, other.profile, other.notes)
    if table.quarantine is not None and other.quarantine is not None:
        assert table.quarantine.fingerprint == other.quarantine.fingerprint
    return table


@pytest.mark.spark
@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("label", ["label", "double", "cents"])
def test_what_is_read_is_what_spark_reads(
    label: str, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows without a label, of blanks or infinite, are set aside with the same reasons."""
    monkeypatch.setattr(load, "QUARANTINE_LIMIT", 1.0)
    source = write(tmp_path / "t", COLUMNS)
    files = sorted(source.iterdir())
    counts = [pieces.count for least in (1, 8) if (pieces := parquet_pieces(files, least)) is not None]
    assert counts == [1, 7], "all together, or each row group of the three files alone"
    with monkeypatch.context() as patch:
        patch.setattr(load, "_loaded", None)
        load_table(spark, str(source), label)
    table = alike(spark, source, label, monkeypatch)
    assert 0 < table.quarantined < ROWS == table.quarantined + table.data.rows


@pytest.mark.spark
@pytest.mark.usefixtures("store")
def test_moments_of_spark_are_read_to_the_last(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 96 bits, beyond those that nanoseconds reach."""
    frame = spark.range(300).selectExpr(
        "id AS label", "timestamp_micros(-62135596800000000 + id * 1000000000000007) AS at"
    )
    with monkeypatch.context() as patch:
        patch.setattr(load, "_loaded", None)
        frame.write.option("parquet.block.size", 1).parquet(str(tmp_path / "t"))
        load_table(spark, str(tmp_path / "t"), "label")
    alike(spark, tmp_path / "t", "label", monkeypatch)


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_columns_that_need_care_are_left_to_spark(name: str, tmp_path: Path) -> None:
    source = write(tmp_path / "t", {name: NOT_PLAIN[name], "label": COLUMNS["label"]})
    assert parquet_pieces(sorted(source.iterdir()), least=2) is None


def test_files_of_old_spark_and_files_that_differ_are_left_to_spark(tmp_path: Path) -> None:
    table = pa.table({"day": COLUMNS["day"]})
    for number, version in enumerate((b"3.5.0", b"2.4.8")):
        parquet.write_table(table.replace_schema_metadata({SPARK_VERSION: version}), tmp_path / f"{number}")
    parquet.write_table(pa.table({"day": COLUMNS["at"]}), tmp_path / "2")
    new, old, other = (tmp_path / name for name in "012")
    assert parquet_pieces([new], least=2) is not None
    assert parquet_pieces([old], least=2) is None
    assert parquet_pieces([new, other], least=2) is None


@pytest.mark.spark
@pytest.mark.usefixtures("store")
def test_a_corrupt_row_group_is_told_as_by_spark_and_leaves_nothing(
    spark: SparkSession, tmp_path: Path
) -> None:
    source = write(tmp_path / "t", {"x": COLUMNS["double"], "label": COLUMNS["flag"]}, compression="none")
    content = bytearray((source / "a.parquet").read_bytes())
    content[40:400] = b"\xff" * 360
    (source / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match="cannot be loaded"):
        load_table(spark, str(source), "label")
    assert nothing_is_left()
