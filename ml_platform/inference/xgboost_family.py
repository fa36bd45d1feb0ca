"""Boosted trees as estimators. Imported only when an XGBoost model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError
from ml_platform.inference.tree_file import open_trees
from ml_platform.specs.tables import FeatureState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK_ROWS = 65_536


class XGBoostEstimator:
    """A Booster on one thread; every one of its trees votes."""

    def __init__(self, booster: Any, state: FeatureState) -> None:
        self._booster = booster
        self._state = state

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shape (rows, width) → shape (rows, state.outputs): probabilities, or a number."""
        import numpy as np

        out = np.empty((len(features), self._state.outputs), np.float32)
        for start in range(0, len(features), CHUNK_ROWS):
            values = self._booster.inplace_predict(features[start : start + CHUNK_ROWS])
            out[start : start + CHUNK_ROWS] = values if values.ndim == 2 else self._columns(values)
        return out

    def _columns(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """One value a row: the number, or the probability of the second class."""
        import numpy as np

        return values[:, None] if self._state.target is not None else np.stack([1 - values, values], 1)


def open_estimator(path: Path, state: FeatureState) -> XGBoostEstimator:
    """Open a `.ubj` file.

    Raises:
        DataError: It does not give one probability per class, or one number; or cannot be opened.
    """
    booster = open_trees(path)
    _check_output(path, booster, state)
    return XGBoostEstimator(booster, state)


def _check_output(path: Path, booster: Any, state: FeatureState) -> None:
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    outputs = {"binary:logistic": 2}.get(objective, max(1, int(learner["learner_model_param"]["num_class"])))
    if state.target is None:
        wanted, fits = "probabilities", objective in {"binary:logistic", "multi:softprob"}
    else:
        wanted, fits = "a number", objective.startswith("reg:")
    if not fits or outputs != state.outputs or booster.num_features() != state.width:
        raise DataError(
            f"the trees in {path} do not fit their features and classes",
            wanted=f"{state.width} features, {state.outputs} outputs, {wanted}",
            got=f"{booster.num_features()} features, {outputs} outputs, {objective}",
        )
