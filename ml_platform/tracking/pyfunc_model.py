"""MLflow's pyfunc models as functions of a pandas table. Opened on executors, after the caller's consent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError
from ml_platform.inference.binding import Needs
from ml_platform.tracking.server import ALLOW_PICKLE

if TYPE_CHECKING:
    import pandas as pd


class PyfuncTable:
    """A pyfunc model."""

    def __init__(self, model: Any) -> None:
        self._model = model
        signature = model.metadata.signature
        self.needs = Needs(kind="frame", columns=_names(signature))

    def predict(self, given: pd.DataFrame) -> dict[str, Any]:
        """Its output: an array or a series as `prediction`, a table by its columns."""
        import numpy as np
        import pandas as pd

        found = self._model.predict(given)
        if isinstance(found, pd.DataFrame):
            return {str(name): found[name].to_numpy() for name in found}
        if isinstance(found, dict):
            return {str(name): np.asarray(values) for name, values in found.items()}
        return {"prediction": np.asarray(found)}


def open_pyfunc(path: Path, signature: str) -> PyfuncTable:
    """A folder that MLflow wrote.

    Raises:
        DataError: It cannot be opened here.
    """
    del signature
    import mlflow.pyfunc

    try:
        with _consented():
            return PyfuncTable(mlflow.pyfunc.load_model(str(path)))
    except Exception as error:
        raise DataError(f"the pyfunc model {path.name} cannot be opened", got=error) from error


@contextmanager
def _consented() -> Iterator[None]:
    """Inside, MLflow opens pickles, which our own processes tell it not to: the caller was asked before."""
    before = os.environ.get(ALLOW_PICKLE)
    os.environ[ALLOW_PICKLE] = "true"
    try:
        yield
    finally:
        os.environ.pop(ALLOW_PICKLE)
        if before is not None:
            os.environ[ALLOW_PICKLE] = before


def _names(signature: Any) -> tuple[str, ...]:
    if signature is None or signature.inputs is None or signature.inputs.is_tensor_spec():
        return ()
    return tuple(str(name) for name in signature.inputs.input_names())
