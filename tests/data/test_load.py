"""Loading tables with Spark: types, quarantine, classes, and clear errors."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import orc, parquet

from ml_platform.data.classes import class_counts
from ml_platform.data.load import load_table
from ml_platform.errors import DataError
from ml_platform.resources.progress import Progress, listening
from ml_platform.specs.schemas import TableSchema
from ml_platform.store.datasets import read_table
from tests.data.conftest import nothing_is_left

if TYPE_CHECKING:
    from typing import Any

    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("store")]


def csv(tmp_path: Path, text: str) -> str:
    path = tmp_path / "my [1] table.csv"
    path.write_text(text)
    return str(path)


def test_digits_arrive_whole(spark: SparkSession) -> None:
    from sklearn.datasets import load_digits

    table = load_table(spark, "sklearn:digits", "label")
    assert (table.data.rows, table.quarantined, table.quarantine) == (1797, 0, None)
    assert table.data.contract.label == "label"
    assert {c.type for c in table.data.contract.inputs().columns} == {"float"}
    pixels = np.stack([column.to_numpy() for column in read_table(table.data).columns[:-1]], axis=1)
    assert np.array_equal(np.sort(pixels.sum(axis=1)), np.sort(load_digits().data.sum(axis=1)))
    assert class_counts(table.data, "label")["3"] == 183


def test_bundled_labels_are_species(spark: SparkSession) -> None:
    data = load_table(spark, "sklearn:iris", "label").data
    assert class_counts(data, "label") == {"setosa": 50, "versicolor": 50, "virginica": 50}


def test_csv_types_come_from_every_row(spark: SparkSession, tmp_path: Path) -> None:
    """Spark's own inference takes 12:30:00 for a time of today, and 007 for a number."""
    head = "whole;part;flag;day;at;clock;code;text;none;holes;label\n"
    row = '{0};{0};true;2024-02-29;2024-02-29 10:00:00;12:30:00;007;"a;""b""\nc";;NA;{1}\n'
    last = "9;0.5;FALSE;2024-03-01;2024-03-01;23:59:59;010;x;;1.5;yes\n"
    source = csv(tmp_path, head + "".join(row.format(at, ["yes", "no"][at % 2]) for at in range(5)) + last)
    table = load_table(spark, source, "label")
    assert {column.name: column.type for column in table.data.contract.columns} == {
        "whole": "integer", "part": "float", "flag": "boolean", "day": "date", "at": "timestamp",
        "clock": "string", "code": "string", "text": "string", "none": "string", "holes": "float",
        "label": "string",
    }  # fmt: skip
    rows = read_table(table.data).to_pylist()
    assert rows[0]["text"] == 'a;"b"\nc'
    assert rows[0]["at"] == dt.datetime(2024, 2, 29, 10, tzinfo=dt.UTC)
    assert rows[-1]["at"] == dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
    assert [row["holes"] for row in rows] == [None] * 5 + [1.5]


def test_json_lines_keep_the_types_that_all_lines_have(spark: SparkSession, tmp_path: Path) -> None:
    """Digits in quotes stay text; dates are texts in JSON; a key that a line lacks is null there."""
    lines: list[dict[str, Any]] = [
        {"n": 1, "x": 1, "ok": True, "on": "2024-02-29", "at": "2024-02-29T10:00:00Z", "code": "7", "mix": 1},
        {"n": 2**60, "x": 0.5, "big": 2**63, "list": [1], "at": "2024-03-01", "mix": "é\n", "a.b`": None},
    ]
    for at, line in enumerate(lines):
        line["label"] = "ab"[at]
    text = "\ufeff" + "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    path = tmp_path / "my [1] table.jsonl.gz"
    path.write_bytes(gzip.compress(text.encode()))
    table = load_table(spark, str(path), "label")
    assert {column.name: column.type for column in table.data.contract.columns} == {
        "n": "integer", "x": "float", "ok": "boolean", "on": "date", "at": "timestamp", "code": "string",
        "mix": "string", "label": "string", "big": "string", "a.b`": "string",
    }  # fmt: skip
    first, second = read_table(table.data).sort_by("label").to_pylist()
    assert (first["n"], second["n"], first["x"], second["x"]) == (1, 2**60, 1.0, 0.5)
    assert (first["on"], second["on"]) == (dt.date(2024, 2, 29), None)
    assert second["at"] == dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
    assert (first["mix"], second["mix"], second["big"], second["a.b`"]) == ("1", "é\n", str(2**63), None)


def test_orc_and_compressed_csv_arrive_as_their_plain_twins(spark: SparkSession, tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, None], "b": ["x", "y", "z"], "label": ["p", "q", "p"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "orc" / "part=1").mkdir(parents=True)
    orc.write_table(table, tmp_path / "orc" / "part=1" / "t.orc")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b'a,b,label\n1,x,p\n2,y,q\n,"z",p\n'))
    wanted = load_table(spark, str(tmp_path / "t.parquet"), "label").data
    for name in ("orc/part=1/t.orc", "t.csv.gz"):
        assert load_table(spark, str(tmp_path / name), "label").data.fingerprint == wanted.fingerprint
    partitioned = load_table(spark, str(tmp_path / "orc"), "label").data
    assert partitioned.contract.names == ("a", "b", "label", "part")


def test_odd_names_and_a_byte_order_mark_are_kept(spark: SparkSession, tmp_path: Path) -> None:
    source = csv(tmp_path, '\ufeffa.b,`tick`,é"x,la bel\n' + "1,2,3,x\n4,5,6,y\n")
    data = load_table(spark, source, "la bel").data
    assert data.contract.names == ("a.b", "`tick`", 'é"x', "la bel")
    assert read_table(data)["a.b"].to_pylist() == [1, 4]


def test_bad_records_and_values_are_set_aside_with_what_is_wrong(spark: SparkSession, tmp_path: Path) -> None:
    """A column has the type of 99 of 100 of its values; of fewer, text."""
    rows = [f"{at},{at / 4},2024-01-{1 + at % 28:02},{'x7'[at % 2]},{'ab'[at % 2]}" for at in range(200)]
    rows[7] = "7,1.5"
    rows[8] = "8,1.5,2024-01-01,x,a,more"
    rows[9] = "nine,1.5,2024-01-01,x,a"
    rows[10] = "10,?,2024-02-31,x,a"
    rows[11] = "NA,,,x,a"
    rows[12] = "12,1,2024-01-01,x,"
    source = csv(tmp_path, "whole,part,day,mixed,label\n" + "\n".join(rows) + "\n")
    table = load_table(spark, source, "label")
    assert {column.name: column.type for column in table.data.contract.columns} == {
        "whole": "integer", "part": "float", "day": "date", "mixed": "string", "label": "string",
    }  # fmt: skip
    assert (table.data.rows, table.quarantined) == (195, 5)
    assert table.quarantine is not None
    aside = read_table(table.quarantine)
    assert sorted(aside["_reason"].to_pylist()) == [
        "a record of other than 5 fields: 7,1.5",
        "a record of other than 5 fields: 8,1.5,2024-01-01,x,a,more",
        "column 'part' is no number: ?",
        "column 'whole' is no whole number: nine",
        "label 'label' is missing",
    ]


def test_a_quote_that_is_not_closed_swallows_nothing(spark: SparkSession, tmp_path: Path) -> None:
    source = csv(tmp_path, 'a,b,label\n1,"one\ntwo",x\n' + "2,b,y\n" * 50 + '3,"open,x\n' + "4,b,y\n" * 50)
    with pytest.raises(
        DataError, match=r'table.csv(.|\n)*over several lines(.|\n)*3,"open,x(.|\n)*not closed'
    ):
        load_table(spark, source, "label")


def test_too_many_bad_rows_are_an_error_with_the_worst_reasons(spark: SparkSession, tmp_path: Path) -> None:
    source = csv(tmp_path, "a,_reason,label\n" + "1,x,y\n2,y,x\n" * 40 + "3\n" * 6 + "4,z,\n")
    with pytest.raises(DataError) as raised:
        load_table(spark, source, "label")
    assert (raised.value.wanted, raised.value.got) == ("at most 5% of 87 rows", "7 rows (8.0%)")
    said = (raised.value.evidence or "").splitlines()
    assert said[0] == "6 × a record of other than 3 fields"
    assert said[3] == "1 × label 'label' is missing"
    assert '"a": 4, "_reason": "z"' in said[4]
    assert nothing_is_left()


def test_bytes_that_are_utf_8_only_in_part_are_an_error(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("a,label\n1,é\n".encode() + b"1,x\n" * 400_000 + b"caf\xe9,y\n")
    with pytest.raises(DataError, match=r"not UTF-8(.|\n)*0xe9 near position 16000(.|\n)*--reading.encoding"):
        load_table(spark, str(path), "label")


def test_parquet_types_of_pandas_are_read_and_nested_columns_left_out(
    spark: SparkSession, tmp_path: Path
) -> None:
    at = dt.datetime(2024, 1, 1, 12, 0, 0, 1, tzinfo=dt.UTC)
    table = pa.table(
        {
            "naive": pa.array([at.replace(tzinfo=None)] * 4, pa.timestamp("ns")),
            "zoned": pa.array([at] * 4, pa.timestamp("ns", "Asia/Tokyo")),
            "unsigned": pa.array([1, 2, 3, 4], pa.uint32()),
            "category": pa.array(["a", "b", "a", "b"]).dictionary_encode(),
            "list": [[1]] * 4,
            "raw": [b"x"] * 4,
            "label": [1.0, 2.0, 1.0, 2.0],
        }
    )
    folder = tmp_path / "t [x]" / "region=north"
    folder.mkdir(parents=True)
    parquet.write_table(table, folder / "p.parquet")
    heard: list[Progress] = []
    with listening(heard.append):
        data = load_table(spark, str(tmp_path / "t [x]"), "label").data
    assert data.contract.names == ("naive", "zoned", "unsigned", "category", "label", "region")
    assert "list (nested), raw (binary)" in heard[0].message
    back = read_table(data)
    assert back["naive"].to_pylist()[0] == at.replace(tzinfo=None)
    assert back["zoned"].to_pylist()[0] == at
    assert class_counts(data, "label") == {"1": 2, "2": 2}


def test_a_parquet_file_with_a_damaged_page_is_named(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    numbers = np.random.default_rng(1).normal(size=5000)
    parquet.write_table(pa.table({"a": numbers, "label": (numbers > 0).astype(int)}), path)
    content = bytearray(path.read_bytes())
    content[4:4000] = b"\xff" * 3996
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t.parquet cannot be loaded(.|\n)*FAILED_READ_FILE"):
        load_table(spark, str(path), "label")
    assert nothing_is_left()


def test_rows_without_a_label_are_set_aside_with_the_reason(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    labels: list[str | None] = ["a", "b"] * 50
    labels[3:6] = [None, " ", ""]
    parquet.write_table(pa.table({"x": range(100), "label": labels}), path)
    table = load_table(spark, str(path), "label")
    assert (table.data.rows, table.quarantined) == (97, 3)
    assert table.quarantine is not None
    aside = read_table(table.quarantine)
    assert aside["x"].to_pylist() == [3, 4, 5]
    assert set(aside["_reason"].to_pylist()) == {"label 'label' is missing"}
    assert not table.data.contract["label"].nullable


def test_too_many_rows_without_a_label_are_an_error_with_examples(
    spark: SparkSession, tmp_path: Path
) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"x": range(20), "label": [1.0, 2.0] * 9 + [math.nan, None]}), path)
    with pytest.raises(
        DataError, match=r'at most 5% of 20 rows(.|\n)*2 rows \(10.0%\)(.|\n)*"x": 18'
    ) as plain:
        load_table(spark, str(path), "label")
    with pytest.raises(DataError, match="or say otherwise in --schema"):
        load_table(spark, str(path), "label", TableSchema(columns={"x": "integer"}))
    assert "--schema" not in str(plain.value)
    assert nothing_is_left()


def test_a_label_alone_is_nothing_to_learn_from(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column to learn from"):
        load_table(spark, csv(tmp_path, "label\na\nb\n"), "label")
