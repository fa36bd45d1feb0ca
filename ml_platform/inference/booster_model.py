"""XGBoost's own files as functions of arrays. Imported only where one is opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.inference.binding import Input, Needs
from ml_platform.inference.tree_file import open_trees

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEATURES = "features"


class BoosterModel:
    """A Booster on one thread; every one of its trees votes. NaN is a missing value."""

    def __init__(self, booster: Any) -> None:
        self._booster = booster
        width = booster.num_features()
        self.needs = Needs(
            kind="tensors",
            inputs=(Input(name=FEATURES, shape=(width,)),),
            columns=tuple(booster.feature_names or ()),
            missing=True,
        )

    def predict(self, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """As `Booster.predict`: probabilities, or numbers."""
        return {"prediction": self._booster.inplace_predict(given[FEATURES], validate_features=False)}


def open_booster(path: Path, signature: str) -> BoosterModel:
    """A `.ubj` or `.json` file.

    Raises:
        DataError: It is none of XGBoost's.
    """
    del signature
    return BoosterModel(open_trees(path))
