"""How files of text are read: encodings, delimiters, headers, folders, and lines that are bad."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from ml_platform.data import csv_sample
from ml_platform.data.load import check_source, load_table
from ml_platform.data.sources import open_source, read_raw, source_columns
from ml_platform.errors import DataError, SpecError
from ml_platform.specs.contracts import Column, ColumnType, Contract
from ml_platform.specs.schemas import TableSchema
from ml_platform.specs.sources import ReadingSpec
from ml_platform.store.datasets import read_table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TEXT = 'naïve,ort,label\n1,"Zürich",ja\n2,Genève,nein\n3,Bern,ja\n'


def written(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (TEXT.encode("utf-8"), None),
        (TEXT.encode("utf-8-sig"), None),
        (TEXT.encode("utf-16"), "utf-16"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "utf-16"),
        (TEXT.replace("ja", "€ “").encode("cp1252"), "cp1252"),
        ((TEXT + "\x81").encode("latin-1"), "iso8859-1"),
        (b"a,ort,label\n" + b"1,x,y\n" * 300_000 + "1,Zürich,y\n".encode("cp1252"), "cp1252"),
    ],
)
def test_the_encoding_of_a_file_is_found_and_said(
    tmp_path: Path, content: bytes, encoding: str | None
) -> None:
    for name, stored in (("t.csv", content), ("t.csv.gz", gzip.compress(content, 1))):
        source = open_source(written(tmp_path / name, stored))
        assert source.columns()[1:] == ("ort", "label")
        assert source.columns()[0] in {"naïve", "a"}
        assert source.notes() == ((f"{name} is not UTF-8; it was read as {encoding}",) if encoding else ())


@pytest.mark.spark
@pytest.mark.usefixtures("store")
def test_a_table_is_the_same_in_every_encoding_and_spread_over_files(
    spark: SparkSession, tmp_path: Path
) -> None:
    wanted = load_table(spark, written(tmp_path / "utf8.csv", TEXT), "label").data
    assert sorted(read_table(wanted)["ort"].to_pylist()) == ["Bern", "Genève", "Zürich"]
    plain = TEXT.replace('"', "")
    head, *rows = plain.splitlines()
    written(tmp_path / "f" / "1.csv", f"{head}\n{rows[0]}\n{rows[1]}\n".encode("cp1252"))
    written(tmp_path / "f" / "2.csv.gz", gzip.compress(f"{head}\n{rows[2]}\n".encode("cp1252")))
    written(tmp_path / "f" / "_SUCCESS", "")
    sources = {
        str(tmp_path / "f"): ReadingSpec(),
        written(tmp_path / "utf16.csv", TEXT.encode("utf-16")): ReadingSpec(),
        written(tmp_path / "semi.csv", plain.replace(",", ";").encode("cp1252")): ReadingSpec(),
        written(tmp_path / "odd.dat", "\n".join(rows).replace(",", "^").encode("utf-16-le")): ReadingSpec(
            kind="csv", delimiter="^", encoding="UTF-16LE", header=("naïve", "ort", "label")
        ),
    }
    for source, reading in sources.items():
        table = load_table(spark, source, "label", None, reading)
        assert table.data.fingerprint == wanted.fingerprint, source
        assert bool(table.notes) == (reading == ReadingSpec())


@pytest.mark.spark
@pytest.mark.usefixtures("store")
def test_folders_of_text_have_the_columns_of_their_partitions(spark: SparkSession, tmp_path: Path) -> None:
    for year in (2023, 2024):
        written(tmp_path / "c [1]" / f"year={year}" / "x.csv", f"a,label\n{year % 7},x\n9,y\n")
        lines = f'{{"a": {year % 7}, "label": "x"}}\n{{"a": 9, "label": "y"}}\n'
        written(tmp_path / "j [1]" / f"year={year}" / "x.jsonl", lines)
    tables = [load_table(spark, str(tmp_path / name), "label").data for name in ("c [1]", "j [1]")]
    assert tables[0].contract.names == ("a", "label", "year")
    assert sorted(read_table(tables[0]).to_pylist(), key=str) == [
        {"a": 0, "label": "x", "year": 2023}, {"a": 1, "label": "x", "year": 2024},
        {"a": 9, "label": "y", "year": 2023}, {"a": 9, "label": "y", "year": 2024},
    ]  # fmt: skip
    assert [c.type for c in tables[1].contract.columns] == ["integer", "string", "string"]
    assert sorted(map(str, read_table(tables[1])["year"].to_pylist())) == ["2023", "2023", "2024", "2024"]


@pytest.mark.spark
@pytest.mark.usefixtures("store")
def test_a_bad_line_of_json_is_set_aside_and_too_many_are_refused(
    spark: SparkSession, tmp_path: Path
) -> None:
    good = [f'{{"a": {at}, "b": 0.10, "label": "{"xy"[at % 2]}"}}' for at in range(200)]
    bad = ['{"a": 1, "lab', '{"a": 1, "a": 2}', "[1]", "", b'{"label": "caf\xe9"}'.decode("latin-1")]
    content = "\n".join([*good[:50], *bad, *good[50:]]).encode("latin-1")
    table = load_table(spark, written(tmp_path / "t.jsonl", content), "label")
    assert (table.data.rows, table.quarantined) == (200, 4)
    assert table.quarantine is not None
    reasons = read_table(table.quarantine)["_reason"].to_pylist()
    assert {reason.partition(": ")[0] for reason in reasons} == {"a line that is no JSON object"}
    assert 'a line that is no JSON object: {"a": 1, "lab' in reasons
    many = written(tmp_path / "many.jsonl", "\n".join([*good, *bad * 5]).encode("latin-1"))
    with pytest.raises(DataError, match=r"20 rows \(9.1%\)(.|\n)*20 × a line that is no JSON object"):
        load_table(spark, many, "label")
    with pytest.raises(DataError, match="line 201 is no JSON object"):
        open_source(many).frame(spark)


@pytest.mark.spark
@pytest.mark.usefixtures("store")
def test_a_few_values_of_another_kind_do_not_make_a_column_of_json_text(
    spark: SparkSession, tmp_path: Path
) -> None:
    """As in a CSV file: 99 of 100 values decide, the other rows are set aside. More of them are said."""
    rows = (
        {"few": at / 2 if at % 150 else "n/a", "many": at if at % 20 else "none", "l": "xy"[at % 2]}
        for at in range(1, 401)
    )
    source = written(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    table = load_table(spark, source, "l")
    types = {column.name: column.type for column in table.data.contract.columns}
    assert types == {"few": "float", "many": "string", "l": "string"}
    assert (table.data.rows, table.quarantined) == (398, 2)
    assert table.quarantine is not None
    assert set(read_table(table.quarantine)["_reason"].to_pylist()) == {"column 'few' is no number: n/a"}
    assert table.notes == ("'many' mixes 380 numbers and 20 texts: text, unless --schema says what it is",)


@pytest.mark.spark
def test_what_a_model_knows_as_text_is_read_as_text(spark: SparkSession, tmp_path: Path) -> None:
    """A table to score may hold codes of digits alone, where the one that was learnt from had letters too."""
    contract = Contract(columns=(Column(name="code", type="string"), Column(name="n", type="float")))
    lines = '{"code": "007", "n": 1}\n{"code": 8, "n": 2}\n'
    for name, text in (("t.csv", "code,n\n007,1\n8,2\n"), ("t.jsonl", lines)):
        frame, _ = read_raw(spark, written(tmp_path / name, text), contract)
        assert [tuple(row) for row in frame.orderBy("n").collect()] == [("007", 1), ("8", 2)]


@pytest.mark.spark
def test_what_is_nested_and_read_by_no_model_is_kept_as_it_is_written(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Beside the predictions: a number in it is no text, and no list was made around it."""
    nested = '{"os": "ios", "ver": [1.5, 2, true, null, "2"]}'
    source = written(tmp_path / "t.jsonl", f'{{"n": 1, "device": {nested}}}\n{{"n": 2, "device": 3}}\n')
    frame, _ = read_raw(spark, source, Contract(columns=(Column(name="n", type="float"),)))
    assert [row["device"] for row in frame.orderBy("n").collect()] == [nested, "3"]


@pytest.mark.spark
def test_a_column_without_a_value_is_of_the_type_that_the_model_knows(
    spark: SparkSession, tmp_path: Path
) -> None:
    """A table to score may have no wind yet; nobody but the model knows that it is a number."""
    types: dict[str, ColumnType] = {"wind": "float", "day": "date", "said": "string", "n": "integer"}
    contract = Contract(columns=tuple(Column(name=name, type=kind) for name, kind in types.items()))
    lines = '{"wind": null, "day": null, "said": null, "n": 1, "more": null}\n'
    for name, text in (("t.csv", "wind,day,said,n,more\n,NA,,1,\n"), ("t.jsonl", lines)):
        frame, _ = read_raw(spark, written(tmp_path / name, text), contract)
        assert dict(frame.dtypes) == {
            "wind": "double", "day": "date", "said": "string", "n": "bigint", "more": "string"
        }  # fmt: skip
        assert [row["n"] for row in frame.collect()] == [1]


@pytest.mark.spark
def test_a_table_to_score_is_read_as_it_is_said_to_be_written(spark: SparkSession, tmp_path: Path) -> None:
    contract = Contract(columns=(Column(name="code", type="string"), Column(name="n", type="float")))
    source = written(tmp_path / "t.csv", "é;1,5\n007;2\n".encode("cp1252"))
    reading = ReadingSpec(delimiter=";", encoding="cp1252", header=("code", "n"))
    assert read_raw(spark, source, contract, reading)[0].collect()[1]["code"] == "007"


@pytest.mark.spark
@pytest.mark.parametrize("suffix", ["parquet", "orc"])
def test_a_category_of_numbers_is_the_same_text_when_it_is_learnt_and_when_it_is_scored(
    spark: SparkSession, tmp_path: Path, store: None, suffix: str
) -> None:
    """A Parquet file holds the codes of a declared category as integers, today as on the day of training."""
    frame = spark.createDataFrame([(1, 0.5, "x"), (20, 1.5, "y")] * 3, "zip int, size double, label string")
    source = str(tmp_path / f"t.{suffix}")
    frame.coalesce(1).write.format(suffix).save(source)
    schema = TableSchema(columns={"zip": "category", "size": "category"})
    learnt = load_table(spark, source, "label", schema).data
    scored, _ = read_raw(spark, source, learnt.contract)
    assert dict(scored.dtypes) == {"zip": "string", "size": "string", "label": "string"}
    assert {tuple(row) for row in scored.collect()} == {
        tuple(row.values()) for row in read_table(learnt).to_pylist()
    }


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", None),
        ("39,State-gov,,true\n50,Self,7.5,false\n38,State-gov,,true\n", None),
        ("7;2,5;x\n1;1,25;y\n3;4,5;x\n", None),
        ("5.1\t5.1\n4.9\t3.0\n", None),
        ("3,1.5\n", None),
        ("a,b\nx,y\nz,x\n", ("a", "b")),
        ("x,x1\ny,x1\nz,x1\n", ("x", "x1")),
        ("a,2.5\n1,2.5\n2,3.5\n", ("a", "2.5")),
        ("land,2010\nfr,5\nde,6\n", ("land", "2010")),
        ("0,1,2\n5.1,3.5,1.4\n", ("0", "1", "2")),
        ("2010,2015,2020\n5,3,1\n", ("2010", "2015", "2020")),
        ("2024-01-01,2024-02-01\n5,3\n", ("2024-01-01", "2024-02-01")),
        ("1,x\n2,y\n", ("1", "x")),
    ],
)
def test_a_first_line_is_a_header_unless_it_can_hardly_be(
    tmp_path: Path, content: str, names: tuple[str, ...] | None
) -> None:
    """Numbers above numbers are values, beside a text that stands again below; 0, 1, 2 are names."""
    source = open_source(written(tmp_path / "t.csv", content))
    unnamed = tuple(f"column_{at + 1}" for at in range(len(source.columns())))
    assert source.columns() == (names or unnamed)
    said = [note for note in source.notes() if "its first line was read as values" in note]
    assert len(said) == (names is None)


def test_whether_there_is_a_header_can_be_said(tmp_path: Path) -> None:
    numbers, texts = written(tmp_path / "n.csv", "7,2\n1,3\n"), written(tmp_path / "t.csv", "a,b\nx,y\n")
    assert source_columns(numbers, ReadingSpec(has_header=True)) == ("7", "2")
    unnamed = open_source(texts, ReadingSpec(has_header=False))
    assert (unnamed.columns(), unnamed.notes()) == (("column_1", "column_2"), ())
    assert source_columns(texts, ReadingSpec(has_header=False, header=("c", "d"))) == ("c", "d")
    with pytest.raises(ValidationError, match="has_header is true"):
        ReadingSpec(has_header=True, header=("c", "d"))
    with pytest.raises(SpecError, match="has no has_header to be given"):
        source_columns("sklearn:iris", ReadingSpec(has_header=False))
    with pytest.raises(SpecError, match=r"has no column 'label'(.|\n)*first line was read as values"):
        check_source(numbers, "label")


@pytest.mark.spark
@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("whole_bytes", [1 << 20, 0])
def test_a_table_without_a_header_is_loaded_and_scored_to_its_first_row(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_bytes: int
) -> None:
    """Read by Spark or by Arrow, from one file or several, it is the table that a header would have named."""
    monkeypatch.setattr(csv_sample, "WHOLE_BYTES", whole_bytes)
    rows = [f"{at * 7 % 40},{at / 8},{'xyz'[at % 3]}\n" for at in range(1, 60)]
    named = written(tmp_path / "named.csv", "column_1,column_2,column_3\n" + "".join(rows))
    written(tmp_path / "plain/1.csv", "".join(rows[:20]))
    plain = written(tmp_path / "plain/2.csv", "".join(rows[20:]))
    wanted = load_table(spark, named, "column_3").data
    found = load_table(spark, str(Path(plain).parent), "column_3")
    assert found.data.fingerprint == wanted.fingerprint
    assert "plain: its first line was read as values" in found.notes[0]
    scored, reason = read_raw(spark, str(Path(plain).parent), wanted.contract)
    assert (scored.count(), reason) == (59, None)


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path / "t.csv", "1,x\n2,y\n")
    with pytest.raises(DataError, match="wanted: 3 fields: a, b, label"):
        source_columns(source, ReadingSpec(header=("a", "b", "label")))
    with pytest.raises(SpecError, match="has no delimiter to be given"):
        source_columns("sklearn:iris", ReadingSpec(delimiter=";"))
    with pytest.raises(DataError, match="not ASCII text"):
        check_source(
            written(tmp_path / "é.csv", "é,label\n1,2\n"), "label", None, ReadingSpec(encoding="ascii")
        )
    with pytest.raises(ValidationError, match="no encoding is named 'latin-99'"):
        ReadingSpec(encoding="latin-99")
    written(tmp_path / "mixed" / "1.csv", "a,label\n1,x\n")
    written(tmp_path / "mixed" / "2.csv", "label,a\nx,1\n")
    with pytest.raises(DataError, match=r"2.csv has other columns than 1.csv"):
        check_source(str(tmp_path / "mixed"), "label")
    written(tmp_path / "mixed" / "3.jsonl", "{}")
    with pytest.raises(DataError, match=r"several kinds(.|\n)*csv, json"):
        check_source(str(tmp_path / "mixed"), "label")
    assert source_columns(str(tmp_path / "mixed"), ReadingSpec(kind="csv")) == ("a", "label")
    written(tmp_path / "two" / "1.csv", "é,label\n1,x\n")
    written(tmp_path / "two" / "2.csv", "é,label\n1,x\n".encode("cp1252"))
    with pytest.raises(DataError, match="files of several encodings"):
        open_source(str(tmp_path / "two")).notes()
