"""Small real models on real data, for the tests of inference, evaluation and training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from ml_platform.inference.raw_model import write_raw_model
from ml_platform.specs.contracts import Column, Contract
from ml_platform.specs.problems import NumericTarget
from ml_platform.specs.references import Model
from ml_platform.specs.tables import CategoryFeature, FeatureState, NumericFeature, SplitSpec
from ml_platform.store.digests import digest

PEOPLE = pa.table(
    {
        "age": pa.array([31, 45, None, 28, 60, 39], pa.int64()),
        "city": ["Bonn", "Kiel", None, "Oslo", "Bonn", "Kiel"],
        "id": ["a", "b", "c", "d", "e", "f"],
        "left": ["no", "yes", "no", "yes", "no", "yes"],
    }
)
"""Six rows with an integer, a category, a key and a label."""

PEOPLE_CONTRACT = Contract(
    columns=(
        Column(name="age", type="integer"),
        Column(name="city", type="string"),
        Column(name="id", type="string"),
        Column(name="left", type="string"),
    ),
    label="left",
)

PEOPLE_STATE = FeatureState(
    numeric=(NumericFeature(name="age", fill=39, center=40, scale=12),),
    categories=(CategoryFeature(name="city", values=("Bonn", "Kiel")),),
    classes=("no", "yes"),
    class_counts=(3, 3),
    label="left",
)


def digits() -> pa.Table:
    """1,797 handwritten digits: 64 float columns and a label of text."""
    return _labelled(*load_digits(return_X_y=True), "pixel")


def cancer() -> pa.Table:
    """569 tumours: 30 float columns and a label of two classes."""
    return _labelled(*load_breast_cancer(return_X_y=True), "measure")


def diabetes() -> pa.Table:
    """442 patients: 10 float columns and a label that is a number, in units far from 1."""
    features, target = load_diabetes(return_X_y=True)
    columns = {f"measure_{index}": features[:, index] for index in range(features.shape[1])}
    return pa.table({**columns, "label": target * 1000})


def number_contract(table: pa.Table) -> Contract:
    """Contract of a table of floats alone."""
    return Contract(columns=tuple(Column(name=n, type="float") for n in table.column_names), label="label")


def number_state(table: pa.Table) -> FeatureState:
    """State of a table whose label is a number."""
    labels = table.column("label").to_numpy()
    named = table.set_column(table.num_columns - 1, "label", [["a", "b"] * (len(labels) // 2)])
    target = NumericTarget(center=float(labels.mean()), scale=float(labels.std()))
    return state_of(named).model_copy(update={"classes": (), "class_counts": (), "target": target})


def number_model(folder: Path, table: pa.Table, rounds: int = 20) -> Path:
    """The folder of a raw model that predicts a number: boosted trees."""
    import xgboost

    state = number_state(table)
    features, labels = features_of(table, state)
    params = {"objective": "reg:squarederror", "max_depth": 3, "eta": 0.2, "nthread": 1, "verbosity": 0}
    file = folder.with_suffix(".ubj")
    xgboost.train(params, xgboost.DMatrix(features, labels, nthread=1), rounds).save_model(file)
    return write_raw_model(
        folder,
        family="xgboost",
        model_file=file,
        state=state,
        split=SplitSpec(),
        contract=number_contract(table),
        lineage={},
    )


def contract_of(table: pa.Table) -> Contract:
    """Contract of a table of float columns and a text label."""
    columns = [Column(name=name, type="float") for name in table.column_names if name != "label"]
    return Contract(columns=(*columns, Column(name="label", type="string")), label="label")


def state_of(table: pa.Table) -> FeatureState:
    """Standard scaling of every column, fitted on the whole table."""
    classes, counts = np.unique(table.column("label").to_pylist(), return_counts=True)
    names = [name for name in table.column_names if name != "label"]
    numeric = []
    for name in names:
        values = table.column(name).to_numpy()
        fill, center, scale = float(np.median(values)), float(values.mean()), float(values.std()) or 1.0
        numeric.append(NumericFeature(name=name, fill=fill, center=center, scale=scale))
    return FeatureState(
        numeric=tuple(numeric), classes=tuple(classes), class_counts=tuple(counts.tolist()), label="label"
    )


def features_of(table: pa.Table, state: FeatureState) -> tuple[np.ndarray, np.ndarray]:
    """Features and label indices of a table."""
    from ml_platform.features.apply import encode_labels, transform

    return transform(table, state), encode_labels(table.column(state.label), state)


def train_booster(table: pa.Table, state: FeatureState, path: Path, rounds: int = 8) -> Path:
    """A small Booster, trained in this process."""
    import xgboost

    features, labels = features_of(table, state)
    classes = len(state.classes)
    objective = (
        {"objective": "binary:logistic"}
        if classes == 2
        else {"objective": "multi:softprob", "num_class": classes}
    )
    params = {**objective, "max_depth": 3, "nthread": 1, "verbosity": 0}
    xgboost.train(params, xgboost.DMatrix(features, labels, nthread=1), rounds).save_model(path)
    return path


def train_network(table: pa.Table, state: FeatureState, path: Path) -> Path:
    """A small Keras network, trained in this process for an epoch."""
    import keras

    features, labels = features_of(table, state)
    keras.utils.set_random_seed(3)
    layers = [
        keras.layers.Input((state.width,)),
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(len(state.classes), activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(features, labels, epochs=1, batch_size=64, verbose=0)
    model.save(path)
    return path


def raw_model(folder: Path, table: pa.Table, *, family: str = "xgboost", rounds: int = 8) -> Path:
    """The folder of a raw model trained on a table of floats."""
    state = state_of(table)
    if family == "xgboost":
        file = train_booster(table, state, folder.with_suffix(".ubj"), rounds)
    else:
        file = train_network(table, state, folder.with_suffix(".keras"))
    return write_raw_model(
        folder,
        family=family,
        model_file=file,
        state=state,
        split=SplitSpec(),
        contract=contract_of(table),
        lineage={"train": "f" * 8},
    )


def people_model(folder: Path) -> Path:
    """The folder of a raw model that reads an integer and a category."""
    file = train_booster(PEOPLE, PEOPLE_STATE, folder.with_suffix(".ubj"))
    return write_raw_model(
        folder,
        family="xgboost",
        model_file=file,
        state=PEOPLE_STATE,
        split=SplitSpec(),
        contract=PEOPLE_CONTRACT,
        lineage={},
    )


def reference(folder: Path, contract: Contract, classes: tuple[str, ...], family: str = "xgboost") -> Model:
    """A reference to a raw model, as tracking would return it."""
    return Model.model_validate(
        {
            "uri": f"models:/m-{digest(folder)[:8]}",
            "family": family,
            "run_id": "r1",
            "digest": digest(folder),
            "contract": contract.inputs(),
            "classes": classes,
        }
    )


def _labelled(features: np.ndarray, labels: np.ndarray, prefix: str) -> pa.Table:
    columns = {
        f"{prefix}_{index}": features[:, index].astype(np.float64) for index in range(features.shape[1])
    }
    return pa.table({**columns, "label": pa.array([str(label) for label in labels])})
