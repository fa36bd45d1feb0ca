"""The one function that turns raw rows into features."""

from __future__ import annotations

import datetime as dt
import decimal
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from ml_platform.errors import DataError
from ml_platform.features.apply import encode_labels, transform
from ml_platform.specs.tables import (
    CategoryFeature,
    FeatureState,
    Interaction,
    NumericFeature,
    TextFeature,
    TimeFeature,
)

X = NumericFeature(name="x", fill=2.0, center=1.0, scale=4.0)
PLAIN = NumericFeature(name="x", fill=-1.0, center=0.0, scale=1.0)
SEEN = TimeFeature(
    name="seen",
    parts=("year", "month", "hour"),
    year_center=2020,
    year_scale=2,
    reference=dt.date(2020, 1, 11),
    age_center=5,
    age_scale=10,
    missing_flag=True,
)
COLOUR = CategoryFeature(name="colour", values=("red", "blue"))


def state(
    *numeric: NumericFeature,
    times: tuple[TimeFeature, ...] = (),
    categories: tuple[CategoryFeature, ...] = (),
    texts: tuple[TextFeature, ...] = (),
    interactions: tuple[Interaction, ...] = (),
    classes: tuple[str, ...] = ("a", "b"),
) -> FeatureState:
    counts = tuple(1 for _ in classes)
    return FeatureState(
        numeric=numeric,
        times=times,
        categories=categories,
        texts=texts,
        interactions=interactions,
        classes=classes,
        class_counts=counts,
        label="label",
    )


def numbers(column: pa.Array | pa.ChunkedArray) -> list[float]:
    found: list[float] = transform(pa.table({"x": column}), state(PLAIN))[:, 0].tolist()
    return found


def test_numbers_are_scaled_and_missing_ones_filled() -> None:
    table = pa.table({"x": [1.0, 5.0, None, math.nan, math.inf, -math.inf]})
    out = transform(table, state(X))
    assert out.tolist() == [[0.0], [1.0], [0.25], [0.25], [0.25], [0.25]]
    assert (out.dtype, out.flags.c_contiguous) == (np.float32, True)


def test_categories_have_a_bucket_for_unknown_and_one_for_missing_values() -> None:
    table = pa.table({"colour": ["blue", "green", None, "red", ""]})
    out = transform(table, state(categories=(COLOUR,)))
    assert out.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0]]


def test_other_values_are_dealt_over_buckets_by_a_hash_that_never_changes() -> None:
    """The numbers are written down: another hash would make every stored model wrong."""
    hashed = CategoryFeature(name="colour", values=("red",), buckets=4)
    out = transform(pa.table({"colour": ["red", "green", "blue", "", None]}), state(categories=(hashed,)))
    assert out.argmax(axis=1).tolist() == [0, 1 + 1, 1 + 0, 1 + 0, 5]
    assert (out.sum(axis=1) == 1).all()
    assert state(categories=(hashed,)).feature_names[-2:] == ("colour=(bucket 3)", "colour=(missing)")


def test_texts_are_vectors_of_length_one_whatever_their_case_and_form() -> None:
    note = TextFeature(name="note", buckets=64, pieces="words")
    texts = ["Caf\u00e9 au lait", "CAFE\u0301  au lait!", "lait au caf\u00e9", "", None]
    out = transform(pa.table({"note": texts}), state(texts=(note,)))
    assert np.array_equal(out[0], out[1])
    assert not np.array_equal(out[0], out[2])
    assert np.linalg.norm(out[:, :-1], axis=1) == pytest.approx([1, 1, 1, 0, 0])
    assert out[:, -1].tolist() == [0, 0, 0, 0, 1]


def test_interactions_multiply_the_features_of_two_columns() -> None:
    fitted = state(X, categories=(COLOUR,), interactions=(Interaction(left="x", right="colour"),))
    assert fitted.feature_names[-4:] == (
        *("x × colour=red", "x × colour=blue", "x × colour=(unknown)", "x × colour=(missing)"),
    )
    out = transform(pa.table({"x": [5.0, 9.0], "colour": ["blue", None]}), fitted)
    assert out.tolist() == [[1, 0, 1, 0, 0, 0, 1, 0, 0], [2, 0, 0, 0, 1, 0, 0, 0, 2]]


def test_pairs_of_categories_are_hashed_where_there_are_too_many() -> None:
    cross = Interaction(left="colour", right="shape", buckets=8)
    shape = CategoryFeature(name="shape", values=("round", "flat"))
    fitted = state(categories=(COLOUR, shape), interactions=(cross,))
    table = pa.table({"colour": ["red", "red", "blue", "red"], "shape": ["round", "flat", "round", "round"]})
    out = transform(table, fitted)[:, -8:]
    assert (out.sum(axis=1) == 1).all()
    places = out.argmax(axis=1).tolist()
    assert places[0] == places[3]
    assert len(set(places)) == 3


def test_columns_are_found_by_name_and_the_order_is_that_of_the_state() -> None:
    table = pa.table({"other": [9], "colour": ["red"], "x": [5.0]})
    fitted = state(X, NumericFeature(name="other", fill=0, center=0, scale=1), categories=(COLOUR,))
    assert transform(table, fitted).tolist() == [[1, 9, 1, 0, 0, 0]]
    assert transform(table.to_batches()[0], fitted).tolist() == [[1, 9, 1, 0, 0, 0]]


def test_dates_count_days_and_timestamps_seconds_whatever_their_unit_and_zone() -> None:
    at = dt.datetime(1970, 1, 2, 0, 0, 1, 500_000, tzinfo=dt.UTC)
    for unit in ("ms", "us", "ns"):
        for zone in ("UTC", "Asia/Tokyo"):
            assert numbers(pa.array([at, None], pa.timestamp(unit, zone))) == [86_401.5, -1]
    assert numbers(pa.array([at.replace(tzinfo=None)], pa.timestamp("us"))) == [86_401.5]
    assert numbers(pa.array([dt.date(1970, 1, 11), dt.date(1969, 12, 31)])) == [10, -1]
    assert numbers(pa.array([dt.date(1970, 1, 11)], pa.date64())) == [10]


def test_every_number_type_is_read() -> None:
    for kind in (
        pa.int8(),
        pa.uint64(),
        pa.float16(),
        pa.float32(),
        pa.decimal128(10, 2),
        pa.decimal256(40, 2),
    ):
        assert numbers(pa.array([3, None], pa.float64()).cast(kind)) == [3, -1]
    assert numbers(pa.array([True, False, None])) == [1, 0, -1]
    assert numbers(pa.array([decimal.Decimal("1.25")])) == [1.25]
    assert numbers(pa.array([2**62])) == [2.0**62]
    assert numbers(pa.array([3, None, 3]).dictionary_encode()) == [3, -1, 3]
    assert numbers(pa.nulls(2)) == [-1, -1]


def test_every_text_type_is_a_category() -> None:
    values = pa.array(["red", None, "x"])
    expected = [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    kinds = (pa.string(), pa.large_string(), pa.string_view())
    for column in [
        *(values.cast(kind) for kind in kinds),
        values.dictionary_encode(),
        values.cast("large_string").dictionary_encode(),
    ]:
        assert transform(pa.table({"colour": column}), state(categories=(COLOUR,))).tolist() == expected
    assert transform(pa.table({"colour": pa.nulls(1)}), state(categories=(COLOUR,))).tolist() == [
        [0, 0, 0, 1]
    ]


def test_a_missing_number_is_filled_and_flagged() -> None:
    flagged = state(X.model_copy(update={"missing_flag": True}))
    assert flagged.feature_names == ("x", "x=(missing)")
    assert transform(pa.table({"x": [5.0, None, math.nan]}), flagged).tolist() == [
        [1, 0],
        [0.25, 1],
        [0.25, 1],
    ]


def test_a_logarithm_comes_before_the_scale_and_after_the_fill() -> None:
    logged = state(NumericFeature(name="x", fill=-1.0, log=True, center=1.0, scale=2.0))
    found = transform(pa.table({"x": [math.e - 1, None, -0.0]}), logged)[:, 0]
    assert found == pytest.approx([0, (-math.log(2) - 1) / 2, -0.5])


def test_times_become_a_year_places_on_circles_an_age_and_a_flag() -> None:
    fitted = state(times=(SEEN,))
    assert fitted.feature_names == (
        *("seen.year", "seen.month.sin", "seen.month.cos", "seen.hour.sin", "seen.hour.cos"),
        *("seen.age_days", "seen=(missing)"),
    )
    moments = [dt.datetime(2024, 4, 1, 18, tzinfo=dt.UTC), None, dt.datetime(2020, 1, 1, tzinfo=dt.UTC)]
    out = transform(pa.table({"seen": moments}), fitted)
    days = (dt.datetime(2020, 1, 11) - dt.datetime(2024, 4, 1, 18)) / dt.timedelta(days=1)  # noqa: DTZ001
    assert out[0] == pytest.approx([2, 1, 0, -1, 0, (days - 5) / 10, 0], abs=1e-6)
    assert out[1].tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert out[2] == pytest.approx([0, 0, 1, 0, 1, 0.5, 0])
    without = state(times=(SEEN.model_copy(update={"parts": (), "missing_flag": False}),))
    assert transform(pa.table({"seen": [None, dt.date(2020, 1, 1)]}), without).tolist() == [[0], [0.5]]


def test_every_extreme_gives_finite_features() -> None:
    extremes = [math.nan, math.inf, -math.inf, 1e308, -1e308, -0.0, 5e-324, 2.0**53 + 2]
    for log in (False, True):
        for scale in (1e-300, 1.0, 1e300):
            fitted = state(NumericFeature(name="x", fill=0, log=log, center=1, scale=scale))
            assert np.isfinite(transform(pa.table({"x": extremes}), fitted)).all()
    integers = pa.array([2**63 - 1, -(2**63), 2**53 + 1])
    assert np.isfinite(transform(pa.table({"x": integers}), state(X))).all()
    ends = pa.array([-(2**63), 2**63 - 1, 0], pa.int64()).cast(pa.timestamp("us"))
    assert np.isfinite(transform(pa.table({"seen": ends}), state(times=(SEEN,)))).all()


def test_huge_values_stay_finite() -> None:
    fitted = state(NumericFeature(name="x", fill=0, center=-1e308, scale=1e-300))
    out = transform(pa.table({"x": [1.7e308, -1.7e308]}), fitted)
    assert np.isfinite(out).all()


def test_no_rows_and_no_batches_give_an_empty_matrix() -> None:
    schema = pa.schema({"x": pa.float64(), "colour": pa.string()})
    fitted = state(X, categories=(COLOUR,))
    for table in (schema.empty_table(), pa.Table.from_batches([], schema)):
        assert transform(table, fitted).shape == (0, fitted.width)


def test_a_missing_column_is_named_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"column 'x' is missing"):
        transform(pa.table({"y": [1]}), state(X))
    with pytest.raises(DataError, match=r"'colour' is missing(.|\n)*did you mean 'color'"):
        transform(pa.table({"color": ["red"]}), state(categories=(COLOUR,)))


def test_a_column_that_is_there_twice_is_refused() -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(DataError, match=r"'x' is there 2 times"):
        transform(table, state(X))


def test_what_is_no_number_is_shown() -> None:
    assert numbers(pa.array(["1.5", None])) == [1.5, -1]
    with pytest.raises(DataError, match=r"'x' holds what is no number(.|\n)*got: 'tall' \(text\)"):
        numbers(pa.array(["1.5", "tall"]))
    with pytest.raises(DataError, match=r"'x' holds what is no number(.|\n)*list<"):
        numbers(pa.array([[1.0]]))
    with pytest.raises(DataError, match=r"column 'colour' cannot be a category"):
        transform(pa.table({"colour": [["red"]]}), state(categories=(COLOUR,)))


def test_labels_are_found_by_name_whatever_their_type() -> None:
    digits = state(X, classes=("0", "7", "10"))
    for column in (
        pa.array([7, 10, 3, None]),
        pa.array([7.0, 10.0, 0.5, math.nan]),
        pa.array(["7", "10", "x", None]),
    ):
        codes = encode_labels(column, digits)
        assert codes.tolist() == [1, 2, -1, -1]
        assert codes.dtype == np.int32
    assert encode_labels(pa.array([True, False]), state(X, classes=("false", "true"))).tolist() == [1, 0]
    assert encode_labels(pa.chunked_array([], pa.string()), digits).tolist() == []


columns = st.fixed_dictionaries(
    {
        "x": st.lists(st.none() | st.floats(), min_size=12, max_size=12),
        "colour": st.lists(st.sampled_from([None, "red", "blue", "green", ""]), min_size=12, max_size=12),
        "seen": st.lists(st.none() | st.datetimes(), min_size=12, max_size=12),
    }
)


@settings(max_examples=80, deadline=None)
@given(data=columns, start=st.integers(0, 11), length=st.integers(0, 12), chunk=st.integers(1, 5))
def test_slices_chunks_and_encodings_do_not_matter(
    data: dict[str, list[object]], start: int, length: int, chunk: int
) -> None:
    """A row's features depend on the row alone: not on offsets, batches or dictionaries."""
    logged = NumericFeature(name="x", fill=2.0, log=True, center=1.0, scale=4.0)
    hashed = CategoryFeature(name="colour", values=("red",), buckets=3)
    note = TextFeature(name="colour", buckets=4, pieces="both")
    fitted = state(X, logged, times=(SEEN,), texts=(note,), categories=(hashed, COLOUR))
    types = {"x": pa.float64(), "colour": pa.string(), "seen": pa.timestamp("us")}
    table = pa.table({name: pa.array(data[name], kind) for name, kind in types.items()})
    whole = transform(table, fitted)
    assert np.isfinite(whole).all()
    assert (whole[:, -9:-5].sum(axis=1) == 1).all()
    piece = table.slice(start, length)
    expected = whole[start : start + length]
    chunked = pa.Table.from_batches(piece.to_batches(max_chunksize=chunk), table.schema)
    encoded = chunked.set_column(1, "colour", chunked["colour"].dictionary_encode())
    for variant in (piece, chunked, encoded):
        assert np.array_equal(transform(variant, fitted), expected)
    single = [transform(batch, fitted) for batch in piece.to_batches(max_chunksize=1)]
    assert np.array_equal(np.concatenate([np.empty((0, fitted.width), np.float32), *single]), expected)
