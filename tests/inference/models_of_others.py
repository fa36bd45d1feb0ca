"""Small models as others write them, of every kind, and what each predicts in a process of its own."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

WIDTH = 4
NAMES = tuple(f"x{at}" for at in range(WIDTH))
ROWS = 300


def features() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(ROWS, WIDTH)).astype(np.float32)


def table() -> pa.Table:
    """A key, and four columns of numbers."""
    columns = {name: features()[:, at].astype(np.float64) for at, name in enumerate(NAMES)}
    return pa.table({"id": range(ROWS), **columns})


class Other(NamedTuple):
    """A model on disk and its predictions for `features()`: shape (rows,) or (rows, outputs)."""

    path: Path
    expected: np.ndarray


def network(folder: Path) -> Any:
    import keras

    keras.utils.set_random_seed(1)
    layers = [keras.layers.Input((WIDTH,), name="pixels"), keras.layers.Dense(3, activation="softmax")]
    return keras.Sequential(layers)


def keras_file(folder: Path) -> Other:
    model = network(folder)
    model.save(folder / "net #1 é.keras")
    return Other(folder / "net #1 é.keras", np.asarray(model(features())))


def saved_model(folder: Path) -> Other:
    model = network(folder)
    model.export(folder / "exported", verbose=False)
    return Other(folder / "exported", np.asarray(model(features())))


def trees(folder: Path) -> Other:
    import xgboost

    labels = features()[:, 0] > 0
    rows = xgboost.DMatrix(features(), labels, feature_names=list(NAMES), nthread=1)
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 2, "nthread": 1}, rows, 5)
    booster.save_model(folder / "trees.ubj")
    return Other(folder / "trees.ubj", booster.predict(rows))


def pickled(folder: Path) -> Other:
    from sklearn.linear_model import LogisticRegression

    frame = pd.DataFrame(features().astype(np.float64), columns=list(NAMES))
    labels = np.where(frame["x0"] > 0, "up", "down")
    model = LogisticRegression().fit(frame, labels)
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    return Other(folder / "model.pkl", model.predict(frame))


def pyfunc(folder: Path) -> Other:
    import mlflow.pyfunc
    from mlflow.models import infer_signature

    class Summing(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
            if model_input.isna().any(axis=None):
                raise ValueError("a number is missing")
            return model_input.sum(axis=1)

    frame = pd.DataFrame(features().astype(np.float64), columns=list(NAMES))
    signature = infer_signature(frame, frame.sum(axis=1))
    path = folder / "summing"
    mlflow.pyfunc.save_model(path, python_model=Summing(), signature=signature, pip_requirements=[])
    return Other(path, frame.sum(axis=1).to_numpy())


OTHERS: dict[str, Callable[[Path], Other]] = {
    "keras": keras_file,
    "saved_model": saved_model,
    "xgboost": trees,
    "sklearn": pickled,
    "pyfunc": pyfunc,
}
