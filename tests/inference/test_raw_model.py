"""The raw model: a folder that predicts from raw rows, and that cannot be tampered with unseen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.errors import DataError, SpecError, StoreError
from ml_platform.inference.raw_model import (
    _load_pyfunc,
    load_raw_model,
    other_format,
    read_manifest,
    write_raw_model,
)
from ml_platform.specs.tables import SplitSpec
from tests.inference.builders import (
    PEOPLE,
    PEOPLE_CONTRACT,
    PEOPLE_STATE,
    cancer,
    contract_of,
    digits,
    features_of,
    people_model,
    raw_model,
    state_of,
    train_booster,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw_model(tmp_path_factory.mktemp("digits") / "model", digits())


@pytest.fixture
def people(tmp_path: Path) -> Path:
    return people_model(tmp_path / "model")


def test_predicts_what_its_estimator_predicts_from_features(folder: Path) -> None:
    """Raw rows in are features in: nothing is lost between the folder and the Booster."""
    import xgboost

    table = digits()
    features, _ = features_of(table, state_of(table))
    expected = xgboost.Booster(model_file=str(folder / "model.ubj")).predict(xgboost.DMatrix(features))
    got = load_raw_model(folder).predict(table)
    assert got.dtype == np.float32
    assert got.shape == (1797, 10)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_two_classes_get_two_probabilities_that_sum_to_one(tmp_path: Path) -> None:
    """binary:logistic gives one number; (1 - p, p) is what the contract of predict promises."""
    table = cancer()
    got = load_raw_model(raw_model(tmp_path / "model", table)).predict(table)
    assert got.shape == (569, 2)
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-6)
    labels = np.array(table.column("label").to_pylist())
    assert (np.array(["0", "1"])[got.argmax(axis=1)] == labels).mean() > 0.95


def test_no_rows_give_no_predictions(people: Path) -> None:
    model = load_raw_model(people)
    assert model.predict(PEOPLE.slice(0, 0)).shape == (0, 2)
    assert model.to_frame(PEOPLE.slice(0, 0)).shape == (0, 3)


def test_keeps_only_the_columns_that_it_reads(people: Path) -> None:
    """The key and the label are no input: a table without them can be scored."""
    assert read_manifest(people).contract.names == ("age", "city")
    assert load_raw_model(people).predict(PEOPLE.select(["city", "age"])).shape == (6, 2)


def test_a_folder_holds_only_plain_files(people: Path) -> None:
    """Loading a model must not be running it: no pickle, no code."""
    assert sorted(path.name for path in people.iterdir()) == ["features.json", "manifest.json", "model.ubj"]
    assert json.loads((people / "manifest.json").read_text())["format"] == 1


@pytest.mark.parametrize("name", ["features.json", "model.ubj"])
def test_refuses_a_changed_file(people: Path, name: str) -> None:
    path = people / name
    path.write_bytes(path.read_bytes().replace(b"o", b"u", 1))
    with pytest.raises(DataError, match="is not the file that the model was written with"):
        load_raw_model(people)


def test_refuses_an_unlisted_file(people: Path) -> None:
    (people / "python_model.pkl").write_bytes(b"cos\nsystem\n")
    with pytest.raises(DataError, match="does not hold what it should") as caught:
        load_raw_model(people)
    assert "python_model.pkl" in str(caught.value)


def test_refuses_a_manifest_that_lists_a_stranger(people: Path) -> None:
    """A manifest that vouches for more files than a model has is no manifest of ours."""
    manifest = json.loads((people / "manifest.json").read_text())
    manifest["files"]["evil.py"] = {"sha256": "0" * 64, "bytes": 1}
    (people / "manifest.json").write_text(json.dumps(manifest))
    (people / "evil.py").write_text("x")
    with pytest.raises(DataError, match="does not hold what it should"):
        load_raw_model(people)


def test_refuses_a_link(people: Path, tmp_path: Path) -> None:
    (people / "model.ubj").rename(tmp_path / "elsewhere.ubj")
    (people / "model.ubj").symlink_to(tmp_path / "elsewhere.ubj")
    with pytest.raises(DataError, match="plain file"):
        load_raw_model(people)


def test_refuses_another_format(people: Path) -> None:
    text = (people / "manifest.json").read_text().replace('"format": 1', '"format": 2')
    (people / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_raw_model(people)
    assert "wanted: format 1" in str(caught.value)


def test_refuses_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no model folder"):
        load_raw_model(tmp_path)


def test_refuses_trees_of_other_classes(tmp_path: Path) -> None:
    """Ten outputs cannot be probabilities of two classes: said at loading, not at the first row."""
    table = digits()
    file = train_booster(table, state_of(table), tmp_path / "trees.ubj", 1)
    state = state_of(table).model_copy(update={"classes": ("a", "b"), "class_counts": (1, 1)})
    folder = write_raw_model(
        tmp_path / "model",
        family="xgboost",
        model_file=file,
        state=state,
        split=SplitSpec(),
        contract=contract_of(table),
        lineage={},
    )
    with pytest.raises(DataError, match="do not fit their features and classes") as caught:
        load_raw_model(folder)
    assert "got: 64 features, 10 outputs" in str(caught.value)


def test_refuses_what_is_no_model_file(tmp_path: Path) -> None:
    (tmp_path / "noise.ubj").write_bytes(b"noise")
    folder = _write(tmp_path / "model", tmp_path / "noise.ubj")
    with pytest.raises(DataError, match="cannot be opened as XGBoost trees"):
        load_raw_model(folder)


def test_writing_leaves_a_folder_in_use_alone(people: Path) -> None:
    """What is there stays, and no half-written neighbour remains."""
    before = sorted(people.parent.iterdir())
    with pytest.raises(StoreError, match="cannot be written"):
        _write(people, people / "model.ubj")
    assert sorted(people.parent.iterdir()) == before
    load_raw_model(people)


def test_writing_a_missing_model_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        _write(tmp_path / "model", tmp_path / "nowhere.ubj")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_family_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="unknown model family 'xgbost'") as caught:
        _write(tmp_path / "model", tmp_path / "x", family="xgbost")
    assert "did you mean 'xgboost'?" in str(caught.value)


def test_features_that_read_an_unknown_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="read column 'age', which the contract lacks"):
        _write(tmp_path / "model", tmp_path / "x", contract=PEOPLE_CONTRACT.without(["age"]))


def test_pyfunc_takes_pandas_and_ignores_other_columns(people: Path) -> None:
    """MLflow hands over pandas: integers with holes are floats there, and the index is the caller's."""
    frame = PEOPLE.to_pandas().set_index(np.arange(10, 16))
    out = _load_pyfunc(str(people)).predict(frame)
    expected = load_raw_model(people).predict(PEOPLE)
    assert list(out.columns) == ["prediction", "probability", "probabilities"]
    assert out.index.tolist() == frame.index.tolist()
    assert out["prediction"].isin(["no", "yes"]).all()
    assert out["probability"].dtype == np.float64
    np.testing.assert_allclose([row["yes"] for row in out["probabilities"]], expected[:, 1])
    np.testing.assert_allclose(out["probability"], expected.max(axis=1))


def test_pyfunc_names_a_missing_column(people: Path) -> None:
    with pytest.raises(DataError, match="column 'city' is missing") as caught:
        _load_pyfunc(str(people)).predict(PEOPLE.to_pandas().rename(columns={"city": "citi"}))
    assert "did you mean 'citi'?" in str(caught.value)


@pytest.mark.parametrize(("age", "got"), [("old", "text"), (3.5, "truncated")])
def test_pyfunc_refuses_a_value_that_is_not_of_its_type(people: Path, age: object, got: str) -> None:
    frame = PEOPLE.to_pandas().assign(age=age)
    with pytest.raises(DataError, match="column 'age' is not integer") as caught:
        _load_pyfunc(str(people)).predict(frame)
    assert got in str(caught.value)


@pytest.mark.slow
def test_loads_in_a_bare_process_without_spark_or_mlflow(people: Path) -> None:
    """A server that answers requests needs the model's own library, and neither JVM nor tracking."""
    code = (
        "import sys, pyarrow as pa; from pathlib import Path;"
        "from ml_platform.inference.raw_model import load_raw_model;"
        f"m = load_raw_model(Path({str(people)!r}));"
        "print(m.predict(pa.table({'age': [40], 'city': ['Bonn']})).shape);"
        "print(sorted({'pyspark', 'mlflow', 'tensorflow', 'prefect'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.split("\n")[:2] == ["(1, 2)", "[]"]


@pytest.mark.horovod
def test_keras_refuses_a_network_of_other_outputs(tmp_path: Path) -> None:
    """One probability per class, checked when the model is opened."""
    import keras

    model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(3)])
    model.save(tmp_path / "net.keras")
    with pytest.raises(DataError, match="one probability per class") as caught:
        load_raw_model(_write(tmp_path / "three", tmp_path / "net.keras", family="keras"))
    assert "got: 3 values" in str(caught.value)


@pytest.mark.horovod
def test_keras_refuses_code_in_a_model_file(tmp_path: Path) -> None:
    """A Lambda layer is a program: safe mode refuses it."""
    import keras

    layers = [
        keras.layers.Input((5,)),
        keras.layers.Lambda(lambda x: x),
        keras.layers.Dense(2, activation="softmax"),
    ]
    keras.Sequential(layers).save(tmp_path / "net.keras")
    with pytest.raises(DataError, match="cannot be opened as a Keras model"):
        load_raw_model(_write(tmp_path / "model", tmp_path / "net.keras", family="keras"))


@pytest.mark.horovod
def test_keras_gives_the_same_in_chunks_as_at_once(tmp_path: Path) -> None:
    """More rows than one call takes: every row is predicted, in order; a sigmoid gets two sides."""
    import keras

    from ml_platform.inference.keras_family import CHUNK_ROWS

    model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(1, activation="sigmoid")])
    model.save(tmp_path / "net.keras")
    raw = load_raw_model(_write(tmp_path / "model", tmp_path / "net.keras", family="keras"))
    table = pa.table({"age": np.arange(CHUNK_ROWS + 3) % 90, "city": ["Bonn"] * (CHUNK_ROWS + 3)})
    got = raw.predict(table)
    features, _ = features_of(table.append_column("left", [["no"] * len(table)]), PEOPLE_STATE)
    positive = np.asarray(model(features))
    np.testing.assert_allclose(got, np.hstack([1 - positive, positive]), atol=1e-6)


def _write(
    folder: Path, model_file: Path, *, family: str = "xgboost", contract: object = PEOPLE_CONTRACT
) -> Path:
    return write_raw_model(
        folder,
        family=family,
        model_file=model_file,
        state=PEOPLE_STATE,
        split=SplitSpec(),
        contract=contract,
        lineage={},
    )


def test_a_model_of_another_format_is_told_from_one_that_is_damaged(people: Path) -> None:
    """An older champion is no fault of this run; files that are gone are."""
    assert other_format(people) is None
    state = json.loads((people / "features.json").read_text())
    (people / "features.json").write_text(json.dumps({**state, "of_an_older_format": 1}))
    assert "of_an_older_format" in str(other_format(people))
    (people / "features.json").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        other_format(people)
