"""Percentile bootstrap, vectorised, seeded, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ROWS = 200_000
"""More rows are not resampled: a sample of them is, which makes the interval wider, never narrower."""

CHUNK_VALUES = 4_000_000
"""Values drawn at once: bounds memory at some 64 MiB."""


def mean_interval(
    values: NDArray[np.float64], *, resamples: int, confidence: float, seed: int
) -> tuple[float, float]:
    """Ends of the interval of the mean of `values`.

    Args:
        values: Shape (rows,), at least one row.
        confidence: Of the two-sided interval, as 0.95.
    """
    rng = np.random.default_rng(seed)
    drawn = values if len(values) <= MAX_ROWS else values[rng.choice(len(values), MAX_ROWS, replace=False)]
    means = resampled_means(drawn, resamples=resamples, rng=rng) + (values.mean() - drawn.mean())
    return _ends(means, confidence)


def resampled_means(
    values: NDArray[np.float64], *, resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means of `resamples` samples drawn with replacement. Shape (resamples,)."""
    rows = len(values)
    per_chunk = max(1, CHUNK_VALUES // rows)
    means = np.empty(resamples)
    for start in range(0, resamples, per_chunk):
        count = min(per_chunk, resamples - start)
        indices = rng.integers(0, rows, (count, rows), dtype=np.int32)
        means[start : start + count] = values[indices].mean(axis=1)
    return means


def confusion_interval(
    confusion: NDArray[np.int64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[float, float]:
    """Ends of the interval of a statistic of the confusion matrix.

    Resampling rows changes nothing but the cells' counts, which are then multinomial: exact, and free of
    the number of rows.

    Args:
        confusion: Shape (labels, predictions), counts of rows; not all zero.
        statistic: Maps shape (…, labels, predictions) to (…).
    """
    rng = np.random.default_rng(seed)
    rows = min(int(confusion.sum()), MAX_ROWS)
    used = np.flatnonzero(confusion)
    shares = confusion.ravel()[used] / confusion.sum()
    per_chunk = max(1, CHUNK_VALUES // confusion.size)
    values = np.empty(resamples)
    for start in range(0, resamples, per_chunk):
        count = min(per_chunk, resamples - start)
        cells = np.zeros((count, confusion.size))
        cells[:, used] = rng.multinomial(rows, shares, count)
        values[start : start + count] = statistic(cells.reshape(count, *confusion.shape))
    return _ends(values, confidence)


def _ends(samples: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)
