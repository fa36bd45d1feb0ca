"""Fitting what a label that is a number is standardised by."""

from __future__ import annotations

import math

import numpy as np

from ml_platform.data.classes import label_columns
from ml_platform.errors import DataError
from ml_platform.features.labels import label_values
from ml_platform.specs.problems import NumericTarget
from ml_platform.specs.references import Dataset


def fit_target(train: Dataset, label: str) -> NumericTarget:
    """Mean and standard deviation of the label in the training part.

    Sums are rounded once, so they do not depend on the order of rows. Only the label's column is read.

    Raises:
        DataError: The label is no number, or not finite, or the same in all rows.
    """
    values = [label_values(column) for column in label_columns(train, label)]
    everything = np.concatenate([np.empty(0), *values])
    if not len(everything) or not np.isfinite(everything).all():
        raise DataError(
            f"label {label!r} is not a finite number in every row to train on",
            wanted="finite numbers",
            got=f"{int((~np.isfinite(everything)).sum()):,} of {len(everything):,} rows without one",
        )
    mean = math.fsum(everything / len(everything))
    deviation = math.sqrt(math.fsum(np.square(everything - mean) / len(everything)))
    if not 0 < deviation < math.inf:
        raise DataError(
            f"label {label!r} cannot be learnt",
            wanted="numbers that differ, within ±1e150",
            got=f"{everything.min():g} to {everything.max():g} in {len(everything):,} rows to train on",
        )
    return NumericTarget(center=mean, scale=deviation)
