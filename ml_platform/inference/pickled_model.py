"""Models of scikit-learn out of a pickle. Imported only where one is opened, after the caller's consent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError
from ml_platform.inference.binding import Needs

if TYPE_CHECKING:
    import pandas as pd


class PickledModel:
    """An estimator with `predict`."""

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        names = getattr(estimator, "feature_names_in_", ())
        self._named = len(names) > 0
        self.needs = Needs(
            kind="frame",
            columns=tuple(map(str, names)),
            width=getattr(estimator, "n_features_in_", None),
        )

    def predict(self, given: pd.DataFrame) -> dict[str, Any]:
        """What `predict` of the estimator gives."""
        return {"prediction": self._estimator.predict(given if self._named else given.to_numpy())}


def open_pickle(path: Path, signature: str) -> PickledModel:
    """A pickle of scikit-learn, joblib or cloudpickle.

    Raises:
        DataError: It cannot be opened, or does not predict.
    """
    del signature
    import joblib  # type: ignore[import-untyped]

    try:
        estimator = joblib.load(path)
    except Exception as error:
        raise DataError(f"{path.name} cannot be opened as a pickled model", got=error) from error
    if not callable(getattr(estimator, "predict", None)):
        raise DataError(f"{path.name} holds no model", wanted="something with predict", got=type(estimator))
    return PickledModel(estimator)
