"""A label that is a number, standardised: a network learns euros as well as millimetres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ml_platform.features.labels import label_values
from ml_platform.specs.problems import NumericTarget

if TYPE_CHECKING:
    import pyarrow as pa


def standardised(column: pa.Array | pa.ChunkedArray, target: NumericTarget) -> NDArray[np.float32]:
    """Labels as models learn them. Shape (rows,); null is NaN.

    Raises:
        DataError: The type is no number.
    """
    return ((label_values(column) - target.center) / target.scale).astype(np.float32)


def in_own_unit(outputs: NDArray[np.float32], target: NumericTarget) -> NDArray[np.float64]:
    """What a model gave, in the label's own unit. The inverse of `standardised`."""
    return outputs.astype(np.float64) * target.scale + target.center
