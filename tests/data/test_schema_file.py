"""Schema files: a person's word on columns, and what is said when it cannot be."""

from __future__ import annotations

from json import dumps as to_json
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyarrow import json, parquet

from ml_platform.cli.main import main
from ml_platform.data.infer import infer_profile
from ml_platform.data.load import check_source, load_table
from ml_platform.data.schema_file import read_schema, schema_text
from ml_platform.errors import DataError, PlatformError, SpecError
from ml_platform.specs.profiles import ColumnProfile, Profile
from ml_platform.specs.schemas import TableSchema
from ml_platform.store.datasets import read_table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ODD = [
    "no",
    "1",
    "a b",
    "a.b",
    "`a`",
    'say "a"',
    "a: b #c",
    "😀é",
    "tab\t\x07",
    "l" * 300,
    "",
    "drop",
    "'",
    "\\",
]


def written(tmp_path: Path, text: str | bytes, name: str = "s.yaml") -> str:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_a_schema_file_reads_as_it_was_written_whatever_the_names(tmp_path: Path) -> None:
    columns = tuple(ColumnProfile(name=name, kind="category", nulls=1, distinct=2) for name in ODD)
    text = schema_text("my\ntable.csv", Profile(rows=3, sampled=3, columns=columns), [*ODD, "a: b\nc"])
    assert '# "a: b\\nc": nested or binary, left out' in text
    assert read_schema(written(tmp_path, text)) == TableSchema(columns=dict.fromkeys(ODD, "category"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "columns:\n  age: intger\n  b: 7\n",
            "line 2: column 'age' is 'intger'(.|\n)*line 3(.|\n)*'integer'",
        ),
        ("columns:\n  age: [a]\n", "line 2: column 'age'"),
        ("columns:\n  age:\n", "line 2: column 'age' is nothing"),
        ("columns:\n  a: text\n  b: text\n  a: text\n", "'a' twice(.|\n)*lines 2 and 4"),
        ("columns:\n- a\n", "something else on line 2"),
        ("label: y\n", "columns alone(.|\n)*line 1: 'label'"),
        ("", "no schema"),
        ("columns: {a: text\n", "no YAML(.|\n)*line"),
        ("columns:\n  a: !!python/object:os.system {}\n", "line 2"),
        (b"columns:\n  caf\xe9: text\n", "not UTF-8"),
    ],
)
def test_what_a_schema_cannot_say_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        read_schema(written(tmp_path, text))


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"agee": "integer"}, "did you mean 'age'"), ({"label": "drop"}, "drops the label")],
)
def test_a_schema_that_does_not_fit_is_refused_before_anything_starts(
    tmp_path: Path, columns: dict[str, str], message: str
) -> None:
    source = written(tmp_path, "age,label\n1,x\n", "t.csv")
    with pytest.raises(SpecError, match=message):
        check_source(source, "label", TableSchema.model_validate({"columns": columns}))
    with pytest.raises(PlatformError, match="cannot be read"):
        read_schema(str(tmp_path / "none.yaml"))


def row(at: int) -> str:
    day, big = f"2024-01-{1 + at % 28:02}", f"{at}.123456789012345678"
    return f"{at % 7:05},{day},{big},{at % 2},{at},{at * 3},{at * 3},{at},{'ab'[at % 2]}\n"


TABLE = "zip,when,big,flag,free,n,code,seen,label\n" + "".join(map(row, range(200)))


@pytest.mark.spark
@pytest.mark.usefixtures("store")
def test_declared_types_hold_and_what_does_not_parse_is_set_aside(
    spark: SparkSession, tmp_path: Path
) -> None:
    text = TABLE.replace("\n00000,2024-01-08,", "\n0000x,soon,", 1).replace(",150,", ",NA,", 1)
    source = written(tmp_path, text, "t.csv")
    schema = TableSchema.model_validate(
        {
            "columns": {
                "zip": "integer", "when": "timestamp", "big": "decimal", "flag": "boolean", "free": "drop",
                "n": "float", "code": "category", "seen": "text",
            }
        }
    )  # fmt: skip
    table = load_table(spark, source, "label", schema)
    assert [(c.name, c.type, c.kind) for c in table.data.contract.columns] == [
        ("zip", "integer", "integer"), ("when", "timestamp", "timestamp"), ("big", "decimal", "decimal"),
        ("flag", "boolean", "boolean"), ("n", "float", "float"), ("code", "string", "category"),
        ("seen", "string", "text"), ("label", "string", "category"),
    ]  # fmt: skip
    assert table.quarantine is not None
    assert read_table(table.quarantine)["_reason"].to_pylist() == ["column 'zip' is no whole number: 0000x"]
    rows = read_table(table.data).sort_by("big").to_pylist()
    assert (str(rows[1]["big"]), rows[1]["zip"], rows[1]["flag"]) == ("1.123456789012345678", 1, True)
    assert [row["n"] for row in rows].count(None) == 1


@pytest.mark.spark
@pytest.mark.usefixtures("store")
def test_columns_with_types_of_their_own_are_converted_or_refused(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = [{"i": at, "f": at, "t": f"{at}", "on": "2024-01-01", "label": "ab"[at % 2]} for at in range(100)]
    text = "\n".join(map(to_json, [*rows[:50], rows[50] | {"f": 1.5}, *rows[51:]]))
    table = json.read_json(written(tmp_path, text, "t.jsonl"))
    parquet.write_table(table, tmp_path / "t.parquet")
    schema = TableSchema(columns={"i": "category", "f": "integer", "t": "integer", "on": "timestamp"})
    for source in (str(tmp_path / "t.jsonl"), str(tmp_path / "t.parquet")):
        loaded = load_table(spark, source, "label", schema)
        types = {column.name: column.type for column in loaded.data.contract.columns}
        assert types == {"i": "string", "f": "integer", "t": "integer", "on": "timestamp", "label": "string"}
        assert loaded.quarantine is not None
        assert read_table(loaded.quarantine)["_reason"].to_pylist() == ["column 'f' is no whole number: 1.5"]
    parquet.write_table(
        table.set_column(0, "i", table["i"].cast("date32")), tmp_path / "t.parquet"
    ) if False else None
    parquet.write_table(pa.table({"flag": [True, False], "label": ["x", "y"]}), tmp_path / "flags.parquet")
    with pytest.raises(DataError, match="column 'flag' cannot be declared date"):
        load_table(spark, str(tmp_path / "flags.parquet"), "label", TableSchema(columns={"flag": "date"}))


@pytest.mark.spark
@pytest.mark.usefixtures("store")
def test_an_inferred_contract_given_back_gives_the_same_table(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, file = written(tmp_path, TABLE, "t.csv"), tmp_path / "schema.yaml"
    assert main(["contract", "infer", source, "--label", "label", "--output", str(file)]) == 0
    assert "  zip: category  " in file.read_text()
    assert "0 nulls, 7 distinct; such as 00000, 00001, 00002" in file.read_text()
    plain, again = (
        load_table(spark, source, "label"),
        load_table(spark, source, "label", read_schema(str(file))),
    )
    assert again.data.fingerprint == plain.data.fingerprint
    assert again.data.contract == plain.data.contract
    assert main(["contract", "infer", str(tmp_path / "none.csv")]) == 3
    assert "there is no file" in capsys.readouterr().err
    assert infer_profile(spark, source).columns[0].distinct == 7
