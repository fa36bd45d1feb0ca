"""Numbers and dates that are not written as Spark reads them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ml_platform.data.load import load_table
from ml_platform.data.local_forms import forms_of
from ml_platform.data.sources import read_raw
from ml_platform.specs.schemas import TableSchema
from ml_platform.store.datasets import read_table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (["1,5", "2", "1.000", "-0,25"], "comma"),
        (["1.234,50 €", "NA", "3 €"], "comma"),
        (["$5", "$1,200.00"], "money"),
        (["1,200.50", "3"], "money"),
        (["1.2.2026", "31.12.2026 14:05", "2026-12-31"], "day first"),
        (["2026-12-31"], None),
        (["1,234", "2,345"], None),
        (["0,409", "1,234"], "comma"),
        (["0,409", "1,234.50"], None),
        (["1,234", "1,234,567"], "money"),
        (["1.234", "1.234.567"], "comma"),
        (["$85,000", "$900"], "money"),
        (["5.50 €", "12 €"], "money"),
        (["5 €", "$12"], "amount"),
        (["5 €", "1.234 €"], None),
        (["1,859 €"], None),
        (["$1.234"], None),
        (["1.5", "2"], None),
        (["1", "2"], None),
        (["007,5", "1,5"], None),
        (["12/11/2026"], None),
        (["1,5", "about 2"], None),
        (["", "NA"], None),
    ],
)
def test_a_form_is_found_where_it_can_be_nothing_else(values: list[str], form: str | None) -> None:
    assert forms_of(["x"], [[value] for value in values]) == ({} if form is None else {"x": form})


@pytest.mark.parametrize(
    ("values", "form"),
    [(["1.500"], "comma"), (["1.500", "12.5"], None), (["$1,200.50"], "money"), ([""], None)],
)
def test_what_could_be_two_things_is_what_it_was_in_training(values: list[str], form: str | None) -> None:
    found = forms_of(["x"], [[value] for value in values], {"x": "comma"})
    assert found == ({} if form is None else {"x": form})


@pytest.mark.spark
@pytest.mark.usefixtures("store")
def test_a_model_reads_a_later_table_as_the_one_it_learnt_from(spark: SparkSession, tmp_path: Path) -> None:
    trained, later = tmp_path / "trained.csv", tmp_path / "later.csv"
    trained.write_text("preis;label\n" + "1.234,50;ja\n2.000;nein\n" * 20)
    later.write_text("preis\n1.500\n2.000\n")
    table = load_table(spark, str(trained), "label")
    raw, _ = read_raw(spark, str(later), table.data.contract)
    assert sorted(row["preis"] for row in raw.collect()) == [1500.0, 2000.0]


@pytest.mark.spark
@pytest.mark.usefixtures("store")
def test_they_arrive_as_numbers_and_days_and_the_report_says_so(spark: SparkSession, tmp_path: Path) -> None:
    """One value in a hundred may be none; a column that stays text is left alone."""
    path = tmp_path / "läden.csv"
    rows = [
        "1.234,50;$1,200.50;1.2.2026;31.12.2025 14:05;K,7;ja",
        "0;$3;28.02.2026;01.01.2026 00:00;K,8;nein",
    ] * 60
    path.write_text("\n".join(["größe;preis;tag;um;code;label", *rows, "?;$1;3.3.2026;1.1.2026 00:00;K;ja"]))
    table = load_table(spark, str(path), "label")
    types = [column.type for column in table.data.contract.columns]
    assert types == ["float", "float", "date", "timestamp", "string", "string"]
    assert (table.data.rows, table.quarantined) == (120, 1)
    row = next(row for row in read_table(table.data).to_pylist() if row["label"] == "ja")
    assert (row["größe"], row["preis"], row["tag"], row["code"]) == (
        1234.5,
        1200.5,
        dt.date(2026, 2, 1),
        "K,7",
    )
    assert row["um"] == dt.datetime(2025, 12, 31, 14, 5, tzinfo=dt.UTC)
    said = TableSchema(columns={"größe": "decimal", "tag": "date", "preis": "category"})
    row = next(row for row in read_table(load_table(spark, str(path), "label", said).data).to_pylist())
    assert (row["größe"], row["preis"]) in {(Decimal("1234.5"), "$1,200.50"), (Decimal(0), "$3")}
    assert isinstance(row["tag"], dt.date)
    assert [note for note in table.notes if "größe: read as numbers with a decimal comma" in note]
