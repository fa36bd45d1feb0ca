"""Tables that nobody wants to get, loaded on one session: read right, or refused with the reason."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from ml_platform.data import csv_sample, load, parquet_source
from ml_platform.data.load import load_table
from ml_platform.errors import DataError
from ml_platform.features.fit import fit_features
from ml_platform.specs.schemas import TableSchema
from ml_platform.specs.tables import FeatureSpec
from ml_platform.store.datasets import read_table
from tests.data.conftest import nothing_is_left

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("store")]


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str | bytes], str]:
    def write(content: str | bytes) -> str:
        path = tmp_path / "t.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def test_values_at_the_ends_of_their_types_arrive_exactly(
    spark: SparkSession, written: Callable[..., str]
) -> None:
    """As a float, 2^53 + 1 would be 2^53; a whole number beyond 64 bits is a code."""
    source = written(
        "float,day,at,whole,beyond,text,label\n"
        'inf,0001-01-01,0001-01-01 00:00:00,9007199254740993,9223372036854775808,"a\r\nb",x\n'
        "-inf,9999-12-31,9999-12-31T23:59:59.999999Z,9223372036854775807,1,é,y\n"
        "1e308,1582-10-10,2024-03-31 02:30:00,-9223372036854775808,2,😀,x\n"
        "-0.0,NaN,null,NA,3,,y\n"
        "NaN,,,,,,x\n"
    )
    data = load_table(spark, source, "label").data
    assert {column.name: column.type for column in data.contract.columns} == {
        "float": "float", "day": "date", "at": "timestamp", "whole": "integer", "beyond": "string",
        "text": "string", "label": "string",
    }  # fmt: skip
    columns: dict[str, list[Any]] = read_table(data).to_pydict()
    assert columns["float"] == [math.inf, -math.inf, 1e308, 0.0, None]
    assert math.copysign(1, columns["float"][3]) == -1
    assert columns["day"] == [dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(1582, 10, 10), None, None]
    assert columns["at"][:2] == [
        dt.datetime(1, 1, 1, tzinfo=dt.UTC),
        dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.UTC),
    ]
    assert columns["whole"] == [2**53 + 1, 2**63 - 1, -(2**63), None, None]
    assert columns["beyond"][0] == "9223372036854775808"
    assert columns["text"][:3] == ["a\r\nb", "é", "😀"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Pacific/Kiritimati"])
def test_moments_and_dates_are_the_same_in_a_session_of_another_zone(
    spark: SparkSession, written: Callable[..., str], zone: str
) -> None:
    """A session that was live before us may have any zone. A clock without one is of the session's zone; one
    that Berlin skips in March is an hour later there."""
    session = spark.newSession()
    session.conf.set("spark.sql.session.timeZone", zone)
    source = written(
        "day,at,clock,label\n"
        "0001-01-01,0001-01-01 00:00:00Z,2024-03-31 02:30:00,x\n"
        "9999-12-31,9999-12-31T23:59:59.999999Z,2024-01-01 00:00:00,y\n"
        "2024-03-31,2024-03-31T02:30:00+02:00,1970-01-01 12:00:00,x\n"
    )
    columns: dict[str, list[Any]] = read_table(load_table(session, source, "label").data).to_pydict()
    assert columns["day"] == [dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(2024, 3, 31)]
    assert columns["at"] == [
        dt.datetime(1, 1, 1, tzinfo=dt.UTC),
        dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.UTC),
        dt.datetime(2024, 3, 31, 0, 30, tzinfo=dt.UTC),
    ]
    clocks = [(2024, 3, 31, 2, 30), (2024, 1, 1, 0, 0), (1970, 1, 1, 12, 0)]
    there = [dt.datetime(*clock, tzinfo=ZoneInfo(zone)) for clock in clocks]
    assert columns["clock"] == [moment.astimezone(dt.UTC) for moment in there]


@pytest.mark.parametrize("kind", ["INT96", "TIMESTAMP_MICROS"])
def test_moments_in_parquet_that_spark_has_written_arrive(
    spark: SparkSession, tmp_path: Path, kind: str
) -> None:
    """Its own 96 bits are what Arrow calls nanoseconds."""
    session = spark.newSession()
    session.conf.set("spark.sql.parquet.outputTimestampType", kind)
    moments = [dt.datetime(2024, 3, 31, 2, 30, 0, 123456, dt.UTC), dt.datetime(1999, 12, 31, tzinfo=dt.UTC)]
    rows = [(moments[0], "x"), (moments[1], "y")]
    session.createDataFrame(rows, "at timestamp, label string").write.parquet(str(tmp_path / "t"))
    columns = read_table(load_table(session, str(tmp_path / "t"), "label").data).to_pydict()
    assert sorted(columns["at"]) == sorted(moments)


def test_an_infinite_label_is_set_aside(spark: SparkSession, written: Callable[..., str]) -> None:
    """Nobody can learn it; one of them is no reason to refuse the others."""
    table = load_table(spark, written("a,label\n" + "1,2.5\n2,3.5\n" * 30 + "3,-inf\n"), "label")
    assert table.quarantine is not None
    assert (table.data.rows, read_table(table.quarantine)["_reason"].to_pylist()) == (
        60,
        ["label 'label' is infinite"],
    )


def test_odd_names_and_two_rows(spark: SparkSession, written: Callable[..., str]) -> None:
    names = ["a b", "a.b", "`a`", 'say ""a""', "😀", "l" * 300, "label"]
    header = ",".join(f'"{name}"' for name in names)
    data = load_table(spark, written(f"{header}\n1,2,3,4,5,6,x\n1,2,3,4,5,7,y\n"), "label").data
    assert (data.rows, data.contract.names) == (2, tuple(name.replace('""', '"') for name in names))
    assert sorted(read_table(data)["l" * 300].to_pylist()) == [6, 7]


@pytest.mark.parametrize("columns", [150, pytest.param(2000, marks=pytest.mark.long)])
def test_wide_tables_are_typed_profiled_and_fitted(
    spark: SparkSession, written: Callable[..., str], columns: int
) -> None:
    """Plans, compiled code and calls into the JVM must not grow with the square of the columns. Beyond 100
    they travel as one."""
    of_each = {
        "float": [f"{at}.5" for at in range(60)],
        "integer": [str(at % 7) for at in range(60)],
        "date": [f"2024-01-{at % 28 + 1:02}" for at in range(60)],
        "boolean": ["true", "false"] * 30,
        "string": ["a", "b", "NA"] * 20,
    }
    each = columns // len(of_each)
    kinds = list(of_each) * each
    lines = [",".join(of_each[kind][row] for kind in kinds) + f",{'xy'[row % 2]}" for row in range(60)]
    names = [f"c.{at} `é`" for at in range(len(kinds))]
    table = load_table(spark, written("\n".join([",".join([*names, "label"]), *lines])), "label")
    assert [column.type for column in table.data.contract.columns] == [*kinds, "string"]
    assert table.profile is not None
    assert [column.distinct for column in table.profile.columns[:5]] == [60, 7, 28, 2, 3]
    state = fit_features(spark, table.data, FeatureSpec(), "binary")
    assert [len(state.numeric), len(state.times), len(state.categories)] == [3 * each, each, each]


def test_the_last_record_of_a_truncated_table_is_set_aside(
    spark: SparkSession, written: Callable[..., str]
) -> None:
    table = load_table(spark, written("a,b,label\n" + "1,2,x\n1,3,y\n" * 50 + "1,2"), "label")
    assert table.quarantine is not None
    assert (table.data.rows, read_table(table.quarantine)["_reason"].to_pylist()) == (
        100,
        ["a record of other than 3 fields: 1,2"],
    )


def test_a_record_that_a_delimiter_has_shifted_may_hold_any_text_in_any_column(
    spark: SparkSession, written: Callable[..., str]
) -> None:
    """Numbers, dates, times and booleans are those of the whole records; the shifted one is set aside."""
    good = "2024-01-01,2024-01-01 10:00:00,3,1.5,true,x\n2024-01-02,2024-01-01 11:00:00,4,2.5,false,y\n"
    shifted = "word,2024-01-01,2024-01-01 10:00:00,3,1.5,true,x\n"
    table = load_table(spark, written("day,at,n,v,is,label\n" + good * 20 + shifted), "label")
    assert (table.data.rows, table.quarantined) == (40, 1)
    kinds = [column.type for column in table.data.contract.columns]
    assert kinds == ["date", "timestamp", "integer", "float", "boolean", "string"]


@pytest.mark.parametrize(("bad", "is_refused"), [(2, False), (60, True)])
def test_of_bad_rows_one_in_a_hundred_is_set_aside_and_thirty_are_too_many(
    spark: SparkSession, written: Callable[..., str], bad: int, is_refused: bool
) -> None:
    source = written("a,label\n" + "1\n" * bad + "1,x\n2,y\n" * ((200 - bad) // 2))
    if not is_refused:
        table = load_table(spark, source, "label")
        assert (table.data.rows, table.quarantined) == (200 - bad, bad)
        return
    with pytest.raises(DataError, match=r"60 rows \(30.0%\)(.|\n)*60 × a record of other than 2 fields"):
        load_table(spark, source, "label")
    assert nothing_is_left()


@pytest.mark.parametrize(("bad", "kind", "aside"), [(1, "integer", 1), (2, "category", 0)])
def test_a_column_has_the_type_of_exactly_99_in_100_of_its_values(
    spark: SparkSession, written: Callable[..., str], bad: int, kind: str, aside: int
) -> None:
    rows = [f"{'?' if at < bad else at % 7},{'xy'[at % 2]}\n" for at in range(100)]
    table = load_table(spark, written("a,label\n" + "".join(rows)), "label")
    assert (table.data.contract["a"].kind, table.quarantined) == (kind, aside)


def test_declared_types_reach_columns_of_any_name(spark: SparkSession, written: Callable[..., str]) -> None:
    """Names end up in SQL text, and in the reasons of bad rows."""
    names = ["a b", "a.b", "`a`", "it's", "back\\slash", "r'$1", "😀", "l" * 300]
    rows = [",".join(["1"] * len(names)) + f",{'xy'[at % 2]}\n" for at in range(40 * len(names))]
    for at in range(len(names)):
        rows[at] = ",".join("bad" if at == place else "1" for place in range(len(names))) + ",x\n"
    schema = TableSchema(columns=dict.fromkeys(names, "integer"))
    source = written(",".join([*names, "label"]) + "\n" + "".join(rows))
    table = load_table(spark, source, "label", schema)
    assert {table.data.contract[name].type for name in names} == {"integer"}
    assert table.quarantine is not None
    reasons = read_table(table.quarantine)["_reason"].to_pylist()
    assert sorted(reasons) == sorted(f"column {name!r} is no whole number: bad" for name in names)


def test_a_label_alone_is_refused(spark: SparkSession, written: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=r"no column to learn from(.|\n)*the label 'label' alone"):
        load_table(spark, written("label\nx\ny\n"), "label")


def test_a_nul_byte_is_refused_wherever_it_is(spark: SparkSession, written: Callable[..., str]) -> None:
    source = written(b"a,label\n" + b"1,x\n" * 400_000 + b"\0\0\0\0")
    with pytest.raises(DataError, match="NUL byte at 1600008"):
        load_table(spark, source, "label")


@pytest.mark.parametrize(
    ("kind", "name", "small_bytes"),
    [
        ("csv", "write_dataset", 1 << 20),
        ("csv", "write_pieces", 0),
        ("parquet", "write_dataset", 1 << 20),
        ("parquet", "write_pieces", 0),
        ("jsonl", "write_dataset", 0),
    ],
)
def test_a_file_that_is_replaced_while_it_is_read_is_refused(
    kind: str,
    name: str,
    small_bytes: int,
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was found out about the old rows may not hold of the new ones; by Spark and by Arrow."""
    monkeypatch.setattr(csv_sample, "WHOLE_BYTES", small_bytes)
    monkeypatch.setattr(parquet_source, "SMALL_BYTES", small_bytes)
    source, write = tmp_path / f"t.{kind}", getattr(load, name)
    frame_of = {"csv": pd.DataFrame.to_csv, "parquet": pd.DataFrame.to_parquet}

    def put(last: int) -> None:
        frame = pd.DataFrame({"a": [1, last], "label": ["x", "y"]})
        if kind == "jsonl":
            frame.to_json(source, orient="records", lines=True)
        else:
            frame_of[kind](frame, source, index=False)

    def write_and_replace(*arguments: Any, **options: Any) -> Any:
        dataset = write(*arguments, **options)
        put(last=3)
        return dataset

    put(last=2)
    monkeypatch.setattr(load, name, write_and_replace)
    with pytest.raises(DataError, match=rf"was changed while it was read(.|\n)*another t.{kind}"):
        load_table(spark, str(source), "label")
    assert nothing_is_left()
