"""A CSV file is read once where a sample tells its types, and what is loaded is what two passes load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ml_platform.data import csv_pieces, csv_sample, csv_source, load
from ml_platform.data.csv_sample import take_sample
from ml_platform.data.load import load_table
from ml_platform.data.text_types import KINDS
from ml_platform.specs.references import Table
from tests.data.conftest import nothing_is_left

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 1200
CLEAN: dict[str, Callable[[int], object]] = {
    "whole": lambda at: at * 7 - 300,
    "part": lambda at: f"{at / 8}" if at % 9 else "NA",
    "big": lambda at: 2**60 + at,
    "flag": lambda at: str(at % 3 == 0).lower(),
    "day": lambda at: f"2024-02-{at % 28 + 1:02}",
    "at": lambda at: f"2024-02-01 {at % 24:02}:00:00" if at % 2 else "2024-02-01",
    "code": lambda at: f"{at:05}",
    "city": lambda at: f"city {at % 30}" if at % 4 else "",
    "holes": lambda at: "" if at % 50 else 5,
    "none": lambda at: "NA" if at > LATE else "",
    "label": lambda at: "yes" if at % 2 else "no",
}
LATE = ROWS - 40
NASTY: dict[str, dict[str, Callable[[int], object]]] = {
    "text after integers": {"whole": lambda at: at if at < LATE else "seven"},
    "a single zero before": {"whole": lambda at: "007" if at == LATE else at},
    "fractions after integers": {"whole": lambda at: at if at < LATE else at + 0.5},
    "one percent at the end": {"whole": lambda at: "?" if at >= ROWS - 10 else at},
    "beyond 64 bits at the end": {"big": lambda at: 2**63 if at == LATE else at},
    "days that do not exist": {"day": lambda at: "2024-02-30" if at == LATE else "2024-02-01"},
    "moments after days": {"day": lambda at: "2024-02-01T01:02" if at == LATE else "2024-02-01"},
    "text that is nearly all numbers": {"code": lambda at: f"k{at}" if at < 8 else at},
    "first value at the end": {"part": lambda at: 3 if at == LATE else ""},
    "hexadecimal and infinite": {"part": lambda at: {LATE: "0x1p3", 2: "inf", 3: "1e400"}.get(at, 0.5)},
}
OFTEN = ("fractions after integers", "a single zero before")
RARE = tuple(what for what in NASTY if what not in OFTEN)


@pytest.fixture
def small_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample of a test's table is its first hundred rows or so; tasks read a tenth of it each."""
    monkeypatch.setattr(csv_pieces, "PIECE_BYTES", 9000)
    monkeypatch.setattr(csv_sample, "WHOLE_BYTES", 4000)
    monkeypatch.setattr(csv_sample, "PIECE_BYTES", 4000)


@contextmanager
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the passes over all rows that are made inside."""
    made: list[str] = []
    infer, write, direct = csv_source.infer, load._write_good, load.write_pieces
    with monkeypatch.context() as patch:
        patch.setattr(csv_source, "infer", lambda *given: made.append("types") or infer(*given))
        patch.setattr(load, "_write_good", lambda *given: made.append("rows") or write(*given))
        patch.setattr(load, "write_pieces", lambda *a, **given: made.append("direct") or direct(*a, **given))
        yield made


def write_csv(path: Path, columns: dict[str, Callable[[int], object]], more: str = "") -> str:
    lines = [",".join(columns), *(",".join(str(of(at)) for of in columns.values()) for at in range(ROWS))]
    path.write_text("\n".join([*lines, more]))
    return str(path)


def alike(spark: SparkSession, source: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Table, list[str]]:
    """What is loaded, and by which passes. Two passes load the same."""
    with passes(monkeypatch) as made:
        table = load_table(spark, source, "label")
    with monkeypatch.context() as patch:
        patch.setattr(csv_source.CsvSource, "_sample", None)
        other = load_table(spark, source, "label")
    assert table.data.fingerprint == other.data.fingerprint
    assert table.data.contract == other.data.contract
    assert (table.quarantined, table.profile) == (other.quarantined, other.profile)
    if table.quarantine is not None and other.quarantine is not None:
        assert table.quarantine.fingerprint == other.quarantine.fingerprint
    return table, made


@pytest.mark.spark
@pytest.mark.usefixtures("store", "small_head")
class TestLoading:
    def test_a_clean_table_is_read_once(
        self, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = write_csv(tmp_path / "t.csv", CLEAN, more="too,few\n")
        table, made = alike(spark, source, monkeypatch)
        assert made == ["direct"]
        assert table.quarantined == 1
        assert {column.name: column.type for column in table.data.contract.columns} == {
            "whole": "integer", "part": "float", "big": "integer", "flag": "boolean", "day": "date",
            "at": "timestamp", "code": "string", "city": "string", "holes": "integer", "none": "string",
            "label": "string",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("more", "made"),
        [
            ("", ["direct"]),
            ('"a\nb",1,x\n', ["types", "rows"]),
            (' "he",1,yes\n', ["direct", "types", "rows"]),
            ('5"" disk,1,yes\n', ["direct", "types", "rows"]),
        ],
    )
    def test_a_table_with_quotes_is_read_once_where_nobody_can_read_them_otherwise(
        self, more: str, made: list[str], spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Delimiters and quotes in quotes are those that Spark finds, and texts without a letter."""
        columns: dict[str, Callable[[int], object]] = {
            "said": lambda at: f'"he said ""{at}, or more"""' if at % 3 else '""',
            "whole": lambda at: f'"{at}"' if at % 2 else at,
            "label": CLEAN["label"],
        }
        _, seen = alike(spark, write_csv(tmp_path / "t.csv", columns, more), monkeypatch)
        assert seen == made

    @pytest.mark.parametrize(
        ("before", "end", "encoding", "made"),
        [
            ("\ufeff", "\n", "utf-8", ["direct"]),
            ("\n\n", "\r\n", "utf-8", ["direct"]),
            ("", "\n", "cp1252", ["direct"]),
            ("", "\r", "utf-8", ["direct", "rows"]),
        ],
    )
    def test_lines_and_letters_are_those_that_spark_finds(
        self,
        before: str,
        end: str,
        encoding: str,
        made: list[str],
        spark: SparkSession,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """In several files, with blank lines, white space around values, and rows without a label."""
        (tmp_path / "t").mkdir()
        for part in range(3):
            rows = [f" {at} ,Grün {at % 7},{'' if at % 90 == 5 else 'yes'}" for at in range(500)]
            lines = ["whole,city,label", *rows, "", "1,2", "1,2,3,4"]
            (tmp_path / f"t/{part}.csv").write_bytes((before + end.join(lines)).encode(encoding))
        table, seen = alike(spark, str(tmp_path / "t"), monkeypatch)
        assert (seen[0], seen[-1]) == (made[0], made[-1])
        assert table.quarantined == 3 * (6 + 2)

    @pytest.mark.parametrize("what", [*OFTEN, *(pytest.param(what, marks=pytest.mark.long) for what in RARE)])
    def test_what_the_sample_did_not_show_is_found(
        self, what: str, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        columns = {name: CLEAN[name] for name in ("part", "city", "label")} | NASTY[what]
        _, made = alike(spark, write_csv(tmp_path / "t.csv", columns), monkeypatch)
        assert made[-2:] == ["types", "rows"]
        assert made.count("direct") <= 1

    def test_what_is_all_in_the_sample_needs_no_pass_for_types(
        self, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Bad values, records of another number of fields and blank lines are those that Spark finds."""
        monkeypatch.setattr(csv_sample, "WHOLE_BYTES", 1 << 20)
        columns = CLEAN | {"whole": lambda at: "?" if at >= ROWS - 5 else at}
        source = write_csv(tmp_path / "t.csv", columns, more="1,2\n \t \n\r\n" + ",".join("1" * 12))
        table, made = alike(spark, source, monkeypatch)
        assert (made, table.quarantined) == (["rows"], 7)

    def test_a_wrong_guess_leaves_nothing(
        self, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError("no")

        columns = {name: CLEAN[name] for name in ("part", "label")} | NASTY["fractions after integers"]
        monkeypatch.setattr(csv_source, "infer", fail)
        with pytest.raises(OSError, match="no"):
            load_table(spark, write_csv(tmp_path / "t.csv", columns), "label")
        assert nothing_is_left()


def test_pieces_are_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the lines, and wherever a piece begins."""
    for name, size in {"WHOLE_BYTES": 2000, "PIECE_BYTES": 1000, "STEP_BYTES": 5000}.items():
        monkeypatch.setattr(csv_sample, name, size)
    for end in ("\n", "\r\n", "\r"):
        path = tmp_path / "t.csv"
        path.write_bytes(("\ufeffa;b" + end + f"12345;ümlaut{end}" * 4000).encode())
        found = take_sample([path], delimiter=";", encoding="utf-8", columns=2, has_header=True)
        whole, text = found.counts
        assert not found.is_whole
        assert 400 < whole.sum() == whole[KINDS.index("bigint")] < 2000
        assert text.sum() == text[KINDS.index("string")] == whole.sum()


def test_every_value_of_a_small_file_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(" a \t b\n1\t x \n\n2.5\t\n\t \n3\n4\t5\t6")
    found = take_sample([path], delimiter="\t", encoding="utf-8", columns=2, has_header=True)
    assert found.is_whole
    assert found.counts.tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
