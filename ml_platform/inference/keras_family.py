"""Keras networks as estimators: opened without custom code, one thread, one traced graph.

Imported only when a Keras model is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError
from ml_platform.specs.tables import FeatureState
from ml_platform.worker.session import calm_tensorflow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK_ROWS = 4096
"""Rows per call: bounds the memory of activations."""


class KerasEstimator:
    """A network whose forward pass is traced once, for any number of rows."""

    def __init__(self, model: Any, state: FeatureState) -> None:
        import tensorflow as tf

        self._tf = tf
        self._outputs = state.outputs
        signature = [tf.TensorSpec([None, state.width], tf.float32)]
        self._forward = tf.function(
            lambda features: model(features, training=False), input_signature=signature, autograph=False
        )

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shape (rows, width) → shape (rows, state.outputs): probabilities, or a number."""
        import numpy as np

        out = np.empty((len(features), self._outputs), np.float32)
        for start in range(0, len(features), CHUNK_ROWS):
            chunk = self._forward(self._tf.constant(features[start : start + CHUNK_ROWS])).numpy()
            out[start : start + CHUNK_ROWS] = _both_sides(chunk) if chunk.shape[1] < self._outputs else chunk
        return out


def open_estimator(path: Path, state: FeatureState) -> KerasEstimator:
    """Open a `.keras` file.

    Raises:
        DataError: Its output is not one probability per class, or one number; or it cannot be opened safely.
    """
    calm_tensorflow()
    import keras

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError) as error:
        raise DataError(f"{path} cannot be opened as a Keras model", got=error) from error
    estimator = KerasEstimator(model, state)
    _check_output(path, model, estimator, state)
    return estimator


def _check_output(path: Path, model: Any, estimator: KerasEstimator, state: FeatureState) -> None:
    import numpy as np

    outputs = model.output_shape[-1]
    if state.problem == "regression":
        _check_number(path, outputs)
        return
    fits = outputs == len(state.classes) or (outputs, len(state.classes)) == (1, 2)
    total = float(estimator.predict(np.zeros((1, state.width), np.float32)).sum()) if fits else float("nan")
    if not abs(total - 1) < 1e-3:
        raise DataError(
            f"the network in {path} does not give one probability per class",
            wanted=f"{len(state.classes)} values that sum to 1",
            got=f"{outputs} values that sum to {total:g}",
        )


def _check_number(path: Path, outputs: int) -> None:
    if outputs != 1:
        raise DataError(
            f"the network in {path} does not predict a number", wanted="1 output", got=f"{outputs} outputs"
        )


def _both_sides(positive: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    return np.concatenate([1 - positive, positive], axis=1)
