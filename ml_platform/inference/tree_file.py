"""XGBoost's own files, opened for scoring. Imported only where one is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import DataError

if TYPE_CHECKING:
    from xgboost import Booster


def open_trees(path: Path) -> Booster:
    """A `.ubj` or `.json` file, on one thread of a processor: Spark has a process per core.

    Raises:
        DataError: It is none of XGBoost's.
    """
    import xgboost

    try:
        return xgboost.Booster({"nthread": 1, "device": "cpu", "verbosity": 0}, model_file=str(path))
    except xgboost.core.XGBoostError as error:
        said = str(error).splitlines()[0]
        raise DataError(f"{path.name} cannot be opened as XGBoost trees", got=said) from error
