"""Class names."""

from __future__ import annotations

import datetime as dt
import decimal
import math

import pyarrow as pa
import pytest

from ml_platform.errors import DataError
from ml_platform.features.labels import has_fractions, label_names, name_counts, natural_order


@pytest.mark.parametrize(
    ("column", "names"),
    [
        (pa.array([3, -1, None]), ["3", "-1", None]),
        (pa.array([3.0, -0.0, None, math.nan, 0.5]), ["3", "0", None, None, "0.5"]),
        (pa.array([decimal.Decimal("2.00"), decimal.Decimal("2.50")]), ["2", "2.5"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array(["setosa", None]).dictionary_encode(), ["setosa", None]),
        (pa.array([dt.date(2020, 1, 2)]), ["2020-01-02"]),
        (pa.chunked_array([["a"], [], ["b"]], pa.large_string()), ["a", "b"]),
        (pa.chunked_array([], pa.int64()), []),
        (pa.nulls(2), [None, None]),
    ],
)
def test_names_are_the_text_form_without_a_fraction_of_zero(
    column: pa.Array, names: list[str | None]
) -> None:
    assert label_names(column).to_pylist() == names


def test_a_type_without_a_text_form_is_refused() -> None:
    with pytest.raises(DataError, match="have no names"):
        label_names(pa.array([[1]]))


def test_fractions_are_noticed_in_numbers_alone() -> None:
    assert has_fractions(pa.array([1.0, 0.5, None]))
    assert not has_fractions(pa.array([1.0, None, math.inf]))
    assert not has_fractions(pa.array([1, 2]))
    assert not has_fractions(pa.array(["0.5"]))


def test_counts_add_up_and_leave_nulls_out() -> None:
    assert name_counts([pa.array(["a", None, "b"]), pa.array(["a"])]) == {"a": 2, "b": 1}


def test_whole_numbers_are_ordered_by_value_and_others_by_text() -> None:
    assert natural_order(["10", "9", "-2"]) == ("-2", "9", "10")
    assert natural_order(["10", "9", "x"]) == ("10", "9", "x")
    assert natural_order(["nein", "ja"]) == ("nein", "ja")
    assert natural_order(["ja", "nein", "vielleicht"]) == ("ja", "nein", "vielleicht")
