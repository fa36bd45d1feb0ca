"""That MLflow's own schema check lets through what our contracts allow, and stops what they do not."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models.utils import _enforce_schema

from ml_platform.errors import SpecError
from ml_platform.specs.contracts import Column, Contract
from ml_platform.tracking.signatures import example_frame, signature

TYPES = Contract(
    columns=(
        Column(name="full", type="integer", nullable=False),
        Column(name="holes", type="integer"),
        Column(name="share", type="float"),
        Column(name="price", type="decimal"),
        Column(name="member", type="boolean"),
        Column(name="city", type="string"),
        Column(name="born", type="date"),
        Column(name="seen", type="timestamp"),
        Column(name="label", type="string"),
    ),
    label="label",
)


def rows(**columns: object) -> pd.DataFrame:
    good = {
        "full": [1, 2],
        "holes": [1, 2],
        "share": [0.5, np.nan],
        "price": [1.5, 2.5],
        "member": [True, None],
        "city": ["Bern", None],
        "born": pd.to_datetime(["2020-01-01", None]),
        "seen": pd.to_datetime(["2020-01-01 12:00", None]),
    }
    return pd.DataFrame({**good, **columns})


@pytest.mark.parametrize(
    "holes", [[1, 2], [1, np.nan], pd.array([1, None], dtype="Int64")], ids=["int64", "float64", "Int64"]
)
def test_an_integer_column_that_may_be_null_is_accepted_however_pandas_holds_it(holes: object) -> None:
    checked = _enforce_schema(rows(holes=holes), signature(TYPES).inputs)
    assert list(checked.columns) == list(TYPES.inputs().names)


def test_a_column_that_may_be_null_may_be_left_out() -> None:
    assert "city" not in _enforce_schema(rows().drop(columns="city"), signature(TYPES).inputs)


@pytest.mark.parametrize("bad", [rows().drop(columns="full"), rows(full=["a", "b"]), rows(share=["a", "b"])])
def test_what_breaks_the_contract_is_refused(bad: pd.DataFrame) -> None:
    with pytest.raises(MlflowException):
        _enforce_schema(bad, signature(TYPES).inputs)


def test_the_answer_is_a_class_its_probability_and_all_probabilities() -> None:
    outputs = signature(TYPES).outputs
    assert outputs.input_names() == ["prediction", "probability", "probabilities"]


def test_an_example_of_every_type_passes_the_check_it_illustrates() -> None:
    table = pa.table(
        {
            "label": ["no"] * 9,
            "full": range(9),
            "holes": pa.array([1, None, *range(7)]),
            "share": [0.5] * 9,
            "price": pa.array([Decimal("1.50")] * 9),
            "member": [True, None] + [False] * 7,
            "city": ["Bern", None] + ["Oslo"] * 7,
            "born": pa.array([date(2020, 1, 1)] * 9),
            "seen": pa.array([datetime(2020, 1, 1, tzinfo=UTC)] * 9, pa.timestamp("us", "UTC")),
        }
    )
    frame = example_frame(table, TYPES)
    assert frame.shape == (5, 8)
    assert _enforce_schema(frame, signature(TYPES).inputs)["price"].tolist() == [1.5] * 5


def test_a_packed_column_is_no_raw_input() -> None:
    packed = Contract(columns=(Column(name="features", type="packed", width=4),))
    with pytest.raises(SpecError, match="'features' cannot be raw input"):
        signature(packed)
