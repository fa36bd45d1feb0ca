"""Fitting what a label that is a number is standardised by."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ml_platform.data.classes import label_columns
from ml_platform.errors import DataError
from ml_platform.features.labels import label_values
from ml_platform.features.statistics import exact_sums
from ml_platform.specs.problems import NumericTarget
from ml_platform.specs.references import Dataset


def fit_target(train: Dataset, label: str) -> NumericTarget:
    """Mean and standard deviation of the label in the training part.

    Sums are rounded once, so they do not depend on the order of rows. The label's column is read twice, since
    distances are from the mean, a batch at a time: memory does not grow with the rows.

    Raises:
        DataError: The label is no number, or not finite, or the same in all rows.
    """
    finite, low, high = 0, math.inf, -math.inf
    sums: list[float] = []
    for values in _batches(train, label):
        there = values[np.isfinite(values)]
        finite += len(there)
        if len(there):
            low, high = min(low, float(there.min())), max(high, float(there.max()))
            sums.extend(exact_sums(there / train.rows))
    if finite < train.rows or not finite:
        raise DataError(
            f"label {label!r} is not a finite number in every row to train on",
            wanted="finite numbers",
            got=f"{train.rows - finite:,} of {train.rows:,} rows without one",
        )
    mean = math.fsum(sums)
    squares = (np.square(values - mean) / train.rows for values in _batches(train, label))
    deviation = math.sqrt(math.fsum(number for each in squares for number in exact_sums(each)))
    if not 0 < deviation < math.inf:
        raise DataError(
            f"label {label!r} cannot be learnt",
            wanted="numbers that differ, within ±1e150",
            got=f"{low:g} to {high:g} in {train.rows:,} rows to train on",
        )
    return NumericTarget(center=mean, scale=deviation)


def _batches(train: Dataset, label: str) -> Iterator[NDArray[np.float64]]:
    return (label_values(column) for column in label_columns(train, label))
