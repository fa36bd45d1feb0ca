"""Target encoding: a category as what its rows' labels are like, without telling a row its own label.

A row that the state was fitted on gets the mean over the other folds; every other row the mean over all.

Source: Micci-Barreca 2001, doi:10.1145/507533.507538 (smoothing); Prokhorenkova et al. 2018,
arXiv:1706.09516, section 3.2 (why a row's own label must stay out).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_platform.specs.tables import TargetFeature


def encodings(feature: TargetFeature) -> NDArray[np.float64]:
    """What stands for each value. Shape (folds + 1, values + 1, outputs).

    Without each fold, then of all rows; the last value is every other one, and none.
    """
    rows = np.array(feature.rows, np.float64)
    sums = np.array(feature.sums, np.float64).transpose(0, 2, 1) * feature.unit
    prior = np.array(feature.prior)
    rows = np.concatenate([rows.sum(0) - rows, rows.sum(0, keepdims=True)])[:, :, None]
    sums = np.concatenate([sums.sum(0) - sums, sums.sum(0, keepdims=True)])
    known = (sums + feature.smoothing * prior) / (rows + feature.smoothing)
    others = np.broadcast_to(prior, (len(known), 1, len(prior)))
    return np.concatenate([known, others], axis=1)


def codes_of(values: pa.Array, vocabulary: Sequence[str]) -> NDArray[np.int64]:
    """Place of each text in the vocabulary; its length where it is none of it, or null."""
    found = pc.index_in(values, value_set=pa.array(vocabulary, pa.string()), skip_nulls=True)
    codes: NDArray[np.int64] = pc.fill_null(found, len(vocabulary)).to_numpy(zero_copy_only=False)
    return codes.astype(np.int64)
