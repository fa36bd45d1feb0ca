"""Columns keep their values on the way into a model, or say that they cannot."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ml_platform.errors import DataError
from ml_platform.inference.columns import conform, from_pandas, prediction_columns
from ml_platform.specs.contracts import Column, Contract


def _contract(**types: str) -> Contract:
    return Contract(columns=tuple(Column.model_validate({"name": n, "type": t}) for n, t in types.items()))


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("integer", pa.array([1.0, None, float("nan")]), [1, None, None]),
        ("integer", pa.array([True, False]), [1, 0]),
        ("float", pa.array([1, 2**60 + 1]), [1.0, float(2**60)]),
        ("float", pa.array([Decimal("1.5")]), [1.5]),
        ("float", pa.array([None, None]), [None, None]),
        ("string", pa.array(["a", None], pa.large_string()), ["a", None]),
        ("decimal", pa.array([Decimal("1.50")]), [Decimal("1.50")]),
    ],
)
def test_values_that_fit_their_type_are_kept(kind: str, values: pa.Array, expected: list[object]) -> None:
    table = conform(pa.table({"other": values, "x": values}), _contract(x=kind))
    assert table.column_names == ["x"]
    assert table.column("x").to_pylist() == expected


@pytest.mark.parametrize(
    ("kind", "values"),
    [("integer", [3.5]), ("float", ["1.5"]), ("boolean", ["yes"]), ("date", ["2026-01-01"])],
)
def test_values_that_do_not_fit_are_refused(kind: str, values: list[object]) -> None:
    """Text is never read as a number: a model would score a column that it was not trained on."""
    with pytest.raises(DataError, match=f"column 'x' is not {kind}"):
        conform(pa.table({"x": values}), _contract(x=kind))


def test_pandas_holes_are_nulls_and_times_keep_their_moment() -> None:
    frame = pd.DataFrame(
        {
            "n": [1, np.nan],
            "s": ["a", None],
            "d": [dt.date(2026, 1, 2), None],
            "t": pd.to_datetime(["2026-01-02T03:04:05+01:00", None]),
            "extra": [object(), object()],
        }
    )
    table = from_pandas(frame, _contract(t="timestamp", d="date", s="string", n="integer"))
    assert table.column_names == ["t", "d", "s", "n"]
    moment = dt.datetime(2026, 1, 2, 2, 4, 5, tzinfo=dt.UTC)
    assert table.to_pylist() == [
        {"t": moment, "d": dt.date(2026, 1, 2), "s": "a", "n": 1},
        {"t": None, "d": None, "s": None, "n": None},
    ]


def test_pandas_columns_of_mixed_types_are_refused() -> None:
    with pytest.raises(DataError, match="column 'x' mixes types"):
        from_pandas(pd.DataFrame({"x": [1, "a"]}), _contract(x="integer"))


def test_predictions_name_the_class_and_hold_all_probabilities() -> None:
    table = prediction_columns(np.array([[0.25, 0.75], [0.5, 0.5]], np.float32), ["no", "yes"])
    assert table.column("prediction").to_pylist() == ["yes", "no"]
    assert table.column("probability").to_pylist() == [0.75, 0.5]
    assert table.column("probabilities").to_pylist() == [
        [("no", 0.25), ("yes", 0.75)],
        [("no", 0.5), ("yes", 0.5)],
    ]
