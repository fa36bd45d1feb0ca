"""What MLlib learnt, without Spark: arrays in an `.npz` file without pickles, and NumPy that adds them up.

`width` is the number of features. A linear model holds `coefficients` (outputs, features) and `intercepts`
(outputs,); of two classes the second one's alone. Trees hold, for all nodes of all trees one after the other,
`feature`, `threshold`, `left`, `right` (a leaf is its own child, a child stands behind its parent) and
`values` (nodes, outputs): what a leaf adds to a sum, which is a number, or probabilities, or with one value
for two classes half of the log odds of the second; `roots` are the trees' first nodes. With `projection`
(features, components) trees see the rows multiplied by it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError
from ml_platform.specs.tables import FeatureState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK_ROWS = 2_048
"""Rows at a time: bounds the memory of one place in every tree per row."""

LINEAR = frozenset({"width", "coefficients", "intercepts"})
TREES = frozenset({"width", "feature", "threshold", "left", "right", "values", "roots"})


class MLlibEstimator:
    """A linear model, or trees."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], state: FeatureState) -> None:
        self._arrays = arrays
        self._state = state
        self._has_trees = "roots" in arrays
        self._levels = _levels(arrays) if self._has_trees else 0

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shape (rows, width) → shape (rows, state.outputs): probabilities, or a number."""
        import numpy as np

        out = np.empty((len(features), self._state.outputs), np.float32)
        for start in range(0, len(features), CHUNK_ROWS):
            # As doubles, like MLlib: a value lies on that side of a threshold on which it lay there.
            chunk = features[start : start + CHUNK_ROWS].astype(np.float64)
            out[start : start + CHUNK_ROWS] = self._outputs(self._scores(chunk))
        return out

    def _scores(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        arrays = self._arrays
        if not self._has_trees:
            linear: NDArray[np.float64] = rows @ arrays["coefficients"].T + arrays["intercepts"]
            return linear
        return self._sums(rows @ arrays["projection"] if "projection" in arrays else rows)

    def _sums(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of each row's leaves, over all trees."""
        import numpy as np

        trees = self._arrays
        row = np.arange(len(rows))[:, None]
        at = np.repeat(trees["roots"][None], len(rows), axis=0)
        for _ in range(self._levels):
            left = rows[row, trees["feature"][at]] <= trees["threshold"][at]
            at = np.where(left, trees["left"][at], trees["right"][at])
        sums: NDArray[np.float64] = trees["values"][at].sum(axis=1)
        return sums

    def _outputs(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        import numpy as np

        if self._state.target is not None or (self._has_trees and scores.shape[1] > 1):
            return scores
        if scores.shape[1] == 1:
            odds = 2 * scores if self._has_trees else scores
            scores = np.concatenate([np.zeros_like(odds), odds], axis=1)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
        return shares


def open_estimator(path: Path, state: FeatureState) -> MLlibEstimator:
    """Open an `.npz` file.

    Raises:
        DataError: It does not give one probability per class, or one number; or cannot be opened.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be opened as a model of MLlib", got=error) from error
    if arrays.keys() != LINEAR and arrays.keys() - {"projection"} != TREES:
        raise DataError(f"{path} cannot be opened as a model of MLlib", got=", ".join(sorted(arrays)))
    _check_output(path, arrays, state)
    return MLlibEstimator(arrays, state)


def _check_output(path: Path, arrays: Mapping[str, NDArray[Any]], state: FeatureState) -> None:
    width = int(arrays["width"])
    outputs = arrays["values"].shape[1] if "values" in arrays else len(arrays["coefficients"])
    if width != state.width or (outputs != state.outputs and (outputs, state.outputs) != (1, 2)):
        raise DataError(
            f"the model in {path} does not fit its features and classes",
            wanted=f"{state.width} features, {state.outputs} outputs",
            got=f"{width} features, {outputs} outputs",
        )


def _levels(trees: Mapping[str, NDArray[Any]]) -> int:
    """Steps from the roots to the farthest leaf."""
    import numpy as np

    levels, at = 0, trees["roots"]
    while len(at := at[trees["left"][at] > at]):
        at = np.concatenate([trees["left"][at], trees["right"][at]])
        levels += 1
    return levels
