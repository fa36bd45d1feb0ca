"""Estimators of scikit-learn, kept without pickles. Imported only when such a model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError
from ml_platform.specs.tables import FeatureState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK_ROWS = 65_536

TRUSTED = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
"""Parts of trees, beyond the types that skops itself takes for safe. A file with any other is refused."""


class SklearnEstimator:
    """An estimator on one thread."""

    def __init__(self, estimator: Any, state: FeatureState) -> None:
        from threadpoolctl import ThreadpoolController

        self._estimator = estimator
        self._outputs = state.outputs
        self._call = estimator.predict if state.target is not None else estimator.predict_proba
        self._threads = ThreadpoolController()

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shape (rows, width) → shape (rows, state.outputs): probabilities, or a number."""
        import numpy as np

        out = np.empty((len(features), self._outputs), np.float32)
        with self._threads.limit(limits=1):
            for start in range(0, len(features), CHUNK_ROWS):
                chunk = features[start : start + CHUNK_ROWS]
                out[start : start + CHUNK_ROWS] = self._call(chunk).reshape(len(chunk), -1)
        return out


def open_estimator(path: Path, state: FeatureState) -> SklearnEstimator:
    """Open a `.skops` file.

    Raises:
        DataError: It holds a type that is not trusted, does not give one probability per class, or one
            number; or cannot be opened.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        estimator = skops.io.load(path, trusted=TRUSTED)
    except UntrustedTypesFoundException as error:
        raise DataError(
            f"the model in {path} holds types that are not trusted", wanted=", ".join(TRUSTED), got=error
        ) from error
    except Exception as error:
        # Whatever a damaged file makes of its reader.
        raise DataError(f"{path} cannot be opened as a model of scikit-learn", got=error) from error
    _check_output(path, estimator, state)
    if hasattr(estimator, "n_jobs"):
        estimator.n_jobs = 1
    return SklearnEstimator(estimator, state)


def _check_output(path: Path, estimator: Any, state: FeatureState) -> None:
    from sklearn.base import is_classifier, is_regressor

    width = getattr(estimator, "n_features_in_", 0)
    if state.target is None:
        wanted = f"probabilities of {len(state.classes)} classes"
        classes = [float(index) for index in getattr(estimator, "classes_", ())]
        fits = is_classifier(estimator) and hasattr(estimator, "predict_proba")
        fits = fits and classes == list(range(len(state.classes)))
    else:
        wanted, fits = "a number", is_regressor(estimator)
    if not fits or width != state.width:
        raise DataError(
            f"the model in {path} does not fit its features and classes",
            wanted=f"{state.width} features, {wanted}",
            got=f"{width} features, {type(estimator).__name__}",
        )
