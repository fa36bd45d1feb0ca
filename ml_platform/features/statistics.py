"""Statistics of counted values: exact functions of the counts, so that they do not depend on layout.

`values` are sorted and distinct, `rows` say how many rows have each; shape (values,) both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Rows = NDArray[np.int64]

SKEWED = 2.0
"""Skewness of an exponential distribution. Beyond it, most rows share a small part of the range."""


def moments(values: Values, rows: Rows) -> tuple[float, float]:
    """Mean and standard deviation."""
    shares = rows / rows.sum()
    # Halved, so that the distance of two values near the end of the float64 range stays finite.
    mean = float((values * shares).sum())
    half = values / 2 - mean / 2
    largest = float(np.abs(half).max())
    if largest == 0:
        return mean, 0.0
    return mean, 2 * largest * float(np.sqrt((np.square(half / largest) * shares).sum()))


def exact_sums(numbers: Values) -> list[float]:
    """A few numbers with exactly the sum of many: `math.fsum` of them is that sum, rounded once.

    Numbers of one exponent are whole multiples of one unit; their halves of 26 and 27 bits add up exactly.

    Args:
        numbers: At most 2^26. One that is infinite makes the sum infinite or NaN.
    """
    if not len(numbers):
        return []
    with np.errstate(invalid="ignore"):
        mantissas, exponents = np.frexp(numbers)
        high = np.trunc(np.ldexp(mantissas, 26))
        low = np.ldexp(mantissas, 53) - np.ldexp(high, 27)
        least = int(exponents.min())
        at = exponents - least
        units = np.arange(least, least + int(at.max()) + 1)
        whole = np.ldexp(np.bincount(at, weights=high), units - 26)
        rest = np.ldexp(np.bincount(at, weights=low), units - 53)
    return [*whole[whole != 0].tolist(), *rest[rest != 0].tolist()]


def quantile(values: Values, rows: Rows, share: float) -> float:
    """The smallest value that at least this share of the rows does not exceed.

    >>> quantile(np.array([1.0, 5.0]), np.array([1, 1]), 0.5)
    1.0
    """
    wanted = max(int(np.ceil(share * int(rows.sum()))), 1)
    return float(values[np.searchsorted(np.cumsum(rows), wanted)])


def skewness(values: Values, rows: Rows) -> float:
    """Third standardised moment; 0 where all values are alike."""
    shares = rows / rows.sum()
    mean = float((values * shares).sum())
    half = values / 2 - mean / 2
    largest = float(np.abs(half).max())
    if largest == 0:
        return 0.0
    half /= largest
    deviation = float(np.sqrt((np.square(half) * shares).sum()))
    return float((half**3 * shares).sum()) / deviation**3


def signed_log(values: Values) -> Values:
    """sign(x) log(1 + |x|): monotonic, finite for every finite number, 0 at 0."""
    return np.copysign(np.log1p(np.abs(values)), values)


def is_skewed(values: Values, rows: Rows) -> bool:
    """Whether a logarithm helps: skewness beyond 2, and less than half as far from 0 afterwards."""
    before = abs(skewness(values, rows))
    return before > SKEWED and abs(skewness(signed_log(values), rows)) < before / 2


def spread(values: Values, rows: Rows, scale: str) -> tuple[float, float]:
    """Center and scale of a column: `standard`, `robust` or `none`; see `FeatureSpec.scale`."""
    if scale == "none":
        return 0.0, 1.0
    mean, deviation = moments(values, rows)
    if scale == "standard":
        return mean, deviation or 1.0
    # Halved, as above.
    half = quantile(values / 2, rows, 0.75) - quantile(values / 2, rows, 0.25)
    usual = 2 * half if np.isfinite(2 * half) else deviation
    return quantile(values, rows, 0.5), usual or deviation or 1.0
