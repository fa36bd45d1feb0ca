"""Parts of moments: those of the calendar, for every year that has a name."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from ml_platform.errors import DataError
from ml_platform.features.times import PARTS, ages_in_days, day_of, part_values, waves
from ml_platform.features.values import time_values


def parts_of(moment: dt.datetime) -> list[int]:
    return [moment.year, moment.month - 1, moment.day - 1, moment.weekday(), moment.hour]


def found(column: pa.Array) -> list[list[int]]:
    moments = time_values(column, "at")
    return np.stack([part_values(moments, part) for part in PARTS], axis=1).tolist()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.datetimes(), min_size=1, max_size=5))
def test_parts_are_those_of_the_calendar(moments: list[dt.datetime]) -> None:
    assert found(pa.array(moments, pa.timestamp("us"))) == [parts_of(moment) for moment in moments]


def test_the_first_and_the_last_day_are_days_like_others() -> None:
    days = [dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(1970, 1, 1)]
    midnights = [dt.datetime.combine(day, dt.time()) for day in days]
    assert found(pa.array(days)) == [parts_of(moment) for moment in midnights]
    assert found(pa.array(days, pa.date64())) == [parts_of(moment) for moment in midnights]


def test_a_zone_changes_nothing_and_an_hour_of_summer_time_is_never_missing() -> None:
    """02:30 was never on the clocks of Berlin that day; in UTC it is an hour like any other."""
    at = dt.datetime(2024, 3, 31, 1, 30, tzinfo=dt.UTC)
    hours = [at + dt.timedelta(hours=add) for add in range(3)]
    for zone in ("UTC", "Europe/Berlin", "Asia/Tokyo"):
        for unit in ("s", "ms", "us", "ns"):
            column = pa.array(hours, pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, zone))
            assert [row[4] for row in found(column)] == [1, 2, 3]


def test_missing_moments_are_no_moments_and_text_is_none() -> None:
    assert np.isnat(time_values(pa.array([None, dt.date(2020, 1, 1)]), "at")).tolist() == [True, False]
    assert np.isnat(time_values(pa.nulls(2), "at")).all()
    with pytest.raises(DataError, match=r"'at' holds what is no time(.|\n)*got: string"):
        time_values(pa.array(["2020-01-01"]), "at")


def test_places_on_the_circle_are_apart_and_the_last_is_beside_the_first() -> None:
    months = waves("month").astype(float)
    steps = np.linalg.norm(months - np.roll(months, 1, axis=0), axis=1)
    assert steps == pytest.approx(np.full(12, steps[0]), abs=1e-6)
    assert len({tuple(place) for place in months.round(6).tolist()}) == 12


def test_ages_count_down_to_the_reference_day() -> None:
    moments = np.array(["2020-01-01T12:00", "2020-01-03T00:00", "0001-01-01T00:00"], "datetime64[us]")
    first = (dt.date(2020, 1, 2) - dt.date(1, 1, 1)).days
    assert ages_in_days(moments, dt.date(2020, 1, 2)).tolist() == [0.5, -1, first]
    assert day_of(1e18) == dt.date.max
    assert day_of(-1e18) == dt.date.min
    assert day_of(-1) == dt.date(1969, 12, 31)
