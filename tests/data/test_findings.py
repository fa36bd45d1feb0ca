"""Columns that are of no use, or know too much: found, with numbers."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.data.findings import find, notes, split_notes
from ml_platform.data.profile import TableSurveyor
from ml_platform.data.profile_page import draw_profile, profile_page, profile_rows
from ml_platform.specs.contracts import Column, ColumnType, Contract
from ml_platform.specs.profiles import Finding
from ml_platform.specs.references import Dataset, Table
from ml_platform.specs.tables import SplitSpec

ROWS = 1000
TYPES: dict[str, ColumnType] = {
    "int64": "integer", "double": "float", "string": "string", "bool": "boolean", "date32[day]": "date",
    "null": "string", "decimal128(9, 2)": "decimal",
}  # fmt: skip


def loaded(columns: dict[str, object], label: str = "label") -> Table:
    """As loading would find it, without Spark."""
    batch = pa.record_batch({name: pa.array(values) for name, values in columns.items()})  # type: ignore[arg-type]
    batch = batch.cast(
        pa.schema([f.with_type(pa.string()) if f.type == pa.null() else f for f in batch.schema])
    )
    types: dict[str, ColumnType] = {
        field.name: TYPES.get(str(field.type), "timestamp") for field in batch.schema
    }
    surveyor = TableSurveyor(types, {}, label)
    sketch = surveyor.sketch()
    sketch.add(batch)
    surveyor.kinds([sketch.state()])
    contract = Contract(columns=tuple(Column(name=name, type=kind) for name, kind in types.items()))
    data = Dataset(uri="x", contract=contract, rows=batch.num_rows, bytes=1, fingerprint="x")
    findings = find(surveyor.profile, surveyor.sample, label)
    return Table(data=data, source="my $table$", profile=surveyor.profile, findings=findings)


def mixed() -> dict[str, object]:
    random = np.random.default_rng(0)
    label = random.integers(0, 3, ROWS)
    amount = random.lognormal(3, 1, ROWS)
    days = [dt.date(2024, 1, 1) + dt.timedelta(at % 300) for at in range(ROWS)]
    return {
        "id": [f"c{at:05}" for at in range(ROWS)],
        "nothing": [None] * ROWS,
        "same": ["x"] * ROWS,
        "same or null": ["x" if at % 2 else None for at in range(ROWS)],
        "code of label": [f"k{each}" if at % 500 else "k0" for at, each in enumerate(label)],
        "size of label": label * 10 + random.random(ROWS),
        "missing with label": [None if each == 0 else int(each) for each in label],
        "day of label": [day + int(each) * dt.timedelta(400) for day, each in zip(days, label, strict=True)],
        "half": np.where(random.random(ROWS) < 0.5, label, 0),
        "amount": amount,
        "😀 a.b|`c`$": random.random(ROWS) < 0.2,
        "city": random.choice(["Bern", "Zürich", "Genève"], ROWS, p=[0.7, 0.2, 0.1]),
        "label": [["no", "yes", "maybe"][each] for each in label],
    }  # fmt: skip


def test_useless_and_leaking_columns_are_found_and_others_are_not() -> None:
    table = loaded(mixed())
    assert {finding.column: finding.problem for finding in table.findings} == {
        "id": "identifier", "nothing": "empty", "same": "constant", "code of label": "leak",
        "size of label": "leak", "missing with label": "leak", "day of label": "leak",
    }  # fmt: skip
    lines = "\n".join(notes(table.findings))
    assert "1 column without a value, left out of the features: 'nothing' (1,000 nulls)" in lines
    assert "'same' ('x' in all 1,000 rows)" in lines
    assert "of 1,000 values)" in lines
    assert "4 columns nearly telling the label alone" in lines


def test_a_quantity_is_known_by_a_column_of_the_same_order() -> None:
    random = np.random.default_rng(1)
    price = random.lognormal(3, 1, ROWS)
    columns = {
        "tax": price * 0.19,
        "noisy": price + random.normal(0, 20, ROWS),
        "text": ["a"] * ROWS,
        "label": price,
    }
    found = [finding for finding in loaded(columns).findings if finding.problem == "leak"]
    assert [(finding.column, finding.said) for finding in found] == [
        ("tax", "rank correlation 1.000 over 1,000 rows")
    ]


def test_a_table_sorted_by_its_label_does_not_make_every_number_a_leak() -> None:
    counts = [at % 60 for at in range(ROWS)]
    assert loaded({"count": counts, "label": ["a"] * 500 + ["b"] * 500}).findings == ()


@pytest.mark.parametrize("name", ["iris", "breast_cancer", "wine", "digits"])
def test_real_measurements_are_no_leak(name: str) -> None:
    from ml_platform.data.sklearn_source import SklearnSource

    table = SklearnSource(name)._table
    problems = {finding.problem for finding in loaded(table.to_pydict()).findings}
    assert problems <= {"constant"}


def test_notes_stay_short_whatever_the_number_of_columns() -> None:
    found = [Finding(column=f"c{at}", problem="empty", said="9 nulls") for at in range(2000)]
    (line,) = notes(found)
    assert line.startswith("2,000 columns without a value")
    assert line.endswith("and 1,995 more")
    assert notes(()) == []


def test_an_identifier_could_place_rows_where_nothing_else_does() -> None:
    """The next step stands beside the finding, as it is to be typed."""
    found = (Finding(column="customer no", problem="identifier", said="900 different of 900 values"),)
    (line,) = split_notes(found, SplitSpec(), {"age"})
    assert line.startswith("--split.key-columns 'customer no' keeps each row in its part")
    for split in (SplitSpec(key_columns=("customer no",)), SplitSpec(time="at"), SplitSpec(group="age")):
        assert split_notes(found, split, {"age"}) == []
    assert split_notes((), SplitSpec(), {"age"}) == []


def test_the_column_that_keeps_rows_apart_is_said_to_be_left_out() -> None:
    (line,) = split_notes((), SplitSpec(group="patient"), {"age"})
    assert line.startswith("'patient' deals the rows, left out of the features")
    assert "--features.columns.patient.treat" in line
    assert split_notes((), SplitSpec(group="patient"), {"age", "patient"}) == []


def test_a_profile_is_a_page_a_table_and_a_picture() -> None:
    table = loaded(mixed())
    assert table.profile is not None
    page = profile_page(table)
    assert "1,000 rows, 13 columns, 0 rows set aside." in page
    assert "😀 a.b\\|`c`$" in page
    rows = {row["column"]: row for row in profile_rows(table.profile)}
    assert rows["city"]["commonest"] == "Bern (70%), Zürich (20%), Genève (11%)"
    assert rows["same or null"]["nulls"] == "500 (50.0%)"
    assert (rows["half"]["median"], rows["amount"]["commonest"]) == ("0", "")
    assert {row["median"] for row in rows.values() if row["type"] == "identifier"} == {""}
    figure = draw_profile(table.profile, table.source)
    assert len(figure.axes) == 13
    figure.canvas.draw()


def test_a_picture_of_thousands_of_columns_shows_some() -> None:
    columns: dict[str, object] = {f"c{at}": [at, at + 1, None, at] for at in range(200)}
    table = loaded({**columns, "label": ["a", "b", "a", "b"]})
    assert table.profile is not None
    assert len(draw_profile(table.profile, "wide").axes) == 48
    assert "The first 200 columns are shown." in profile_page(table)


@pytest.mark.parametrize(("far", "found"), [(1e6, True), (-1e6, True), (300, False)])
def test_a_label_with_values_far_from_the_others_is_said(far: float, found: bool) -> None:
    """A few wrong numbers decide every squared error, and no histogram shows them."""
    label = np.random.default_rng(0).normal(100, 20, ROWS)
    label[7] = far
    said = notes(loaded({"label": label, "amount": label[::-1] ** 3}).findings)
    assert bool(said) == found
    if found:
        assert "1 column to be predicted with values far from the others" in said[0]
        assert "'label' (98 of 100 are within" in said[0]
