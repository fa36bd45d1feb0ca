"""Tables and models that are scored: 64 numbers a row, as a vector or as columns; two networks, and trees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

WIDTH = 64
NAMES = [f"f{number}" for number in range(WIDTH)]
HIDDEN = {"50 K parameters": 192, "1 M parameters": 960}
"""Width of the two hidden layers, by the size of a model."""
TREES = {"100 trees": 100}
DEPTH = 6


def write_table(folder: Path, kind: str, rows: int, files: int) -> None:
    """Equal files: a partition each."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number, part in enumerate(np.array_split(np.arange(rows), files)):
        values = random.normal(size=(len(part), WIDTH)).astype(np.float32)
        if kind == "vectors":
            flat = pa.array(values.ravel())
            offsets = pa.array(np.arange(len(part) + 1, dtype=np.int32) * WIDTH)
            columns: dict[str, Any] = {"features": pa.ListArray.from_arrays(offsets, flat)}
        else:
            columns = {name: values[:, at] for at, name in enumerate(NAMES)}
        table = pa.table({"id": part, **columns})
        parquet.write_table(table, folder / f"{number:04d}.parquet", compression="zstd")


def write_network(folder: Path, size: str) -> None:
    """As a Keras file, and as a model of MLflow's."""
    import keras
    import mlflow.keras
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    folder.mkdir(parents=True)
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(HIDDEN[size], activation="relu") for _ in range(2)]
    layers = [keras.layers.Input((WIDTH,), name="features"), *hidden, keras.layers.Dense(10)]
    model = keras.Sequential([*layers, keras.layers.Softmax()])
    model.save(folder / "net.keras")
    inputs = Schema([TensorSpec(np.dtype(np.float32), (-1, WIDTH))])
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, 10))])
    signature = ModelSignature(inputs=inputs, outputs=outputs)
    mlflow.keras.save_model(model, str(folder / "mlflow"), signature=signature, pip_requirements=[])


def write_trees(folder: Path, size: str) -> None:
    """As a file of XGBoost's, and as a model of MLflow's. They learn to tell two classes."""
    import mlflow.xgboost
    import xgboost
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    values = random.normal(size=(20_000, WIDTH)).astype(np.float32)
    labels = (values[:, :8].sum(axis=1) + random.normal(size=20_000) > 0).astype(int)
    rows = xgboost.DMatrix(values, labels, feature_names=NAMES)
    trees = xgboost.train({"objective": "binary:logistic", "max_depth": DEPTH}, rows, TREES[size])
    trees.save_model(folder / "trees.ubj")
    signature = ModelSignature(
        inputs=Schema([ColSpec("float", name) for name in NAMES]), outputs=Schema([ColSpec("float")])
    )
    mlflow.xgboost.save_model(trees, str(folder / "mlflow"), signature=signature, pip_requirements=[])


def difference(folders: list[str]) -> float:
    """The largest between two sets of predictions, row by row."""
    found = []
    for folder in folders:
        table = parquet.read_table(folder, columns=["id", "prediction"]).sort_by("id")
        found.append(np.stack(table.column("prediction").to_numpy(zero_copy_only=False)))
    return float(np.abs(found[0] - found[1]).max())
