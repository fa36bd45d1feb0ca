"""Parts of moments: year, month, day, weekday, hour. In UTC, so no hour is there twice or never."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ml_platform.specs.tables import TimePart

PERIODS: Mapping[TimePart, int] = {"month": 12, "day": 31, "weekday": 7, "hour": 24}
"""Places on the circle of each part that comes again. The year does not."""
PARTS: tuple[TimePart, ...] = ("year", *PERIODS)
YEARS = (1, 9999)
EPOCH = dt.date(1970, 1, 1)
MICROS_PER_HOUR = 3_600_000_000
SECONDS_PER_DAY = 86_400.0


def part_values(moments: NDArray[np.datetime64], part: TimePart) -> NDArray[np.int64]:
    """One part of each moment: years 1 to 9999, others from 0 (January, the 1st, Monday, midnight).

    Args:
        moments: Shape (rows,), datetime64[us], none missing.
    Returns:
        Shape (rows,), int64.
    """
    if part == "year":
        return np.clip(moments.astype("datetime64[Y]").astype(np.int64) + EPOCH.year, *YEARS)
    if part == "month":
        return moments.astype("datetime64[M]").astype(np.int64) % 12
    if part == "day":
        first = moments.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
        return moments.astype("datetime64[D]").astype(np.int64) - first
    if part == "weekday":
        return (moments.astype("datetime64[D]").astype(np.int64) + EPOCH.weekday()) % 7
    return moments.astype(np.int64) // MICROS_PER_HOUR % 24


def waves(part: TimePart) -> NDArray[np.float32]:
    """Sine and cosine of each place of a part on its circle. Shape (places, 2), float32."""
    angles = 2 * np.pi * np.arange(PERIODS[part]) / PERIODS[part]
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def day_of(seconds: float) -> dt.date:
    """The day in UTC that lies so many seconds after 1970 began; the nearest that has a name."""
    days = int(seconds // SECONDS_PER_DAY) + EPOCH.toordinal()
    return dt.date.fromordinal(min(max(days, dt.date.min.toordinal()), dt.date.max.toordinal()))


def ages_in_days(moments: NDArray[np.datetime64], reference: dt.date) -> NDArray[np.float64]:
    """Days from each moment to the start of `reference`; negative after it. Shape (rows,), float64."""
    # As floats: the distance of two int64 may not be one.
    seconds = moments.astype(np.int64).astype(np.float64) / 1e6
    return (midnight(reference) - seconds) / SECONDS_PER_DAY


def midnight(day: dt.date) -> float:
    """Seconds from 1970 to the start of a day in UTC."""
    return (day - EPOCH).days * SECONDS_PER_DAY
