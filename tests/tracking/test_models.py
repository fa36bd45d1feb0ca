"""That a logged model opens anywhere, and that one which was changed opens nowhere of ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pytest
import yaml

from ml_platform.errors import DataError, SpecError, TrackingError
from ml_platform.inference.raw_model import load_raw_model
from ml_platform.specs.references import Dataset, Model
from ml_platform.specs.tracking import TrackingRun
from ml_platform.store.digests import digest
from ml_platform.tracking import fetch, tracking_uri
from ml_platform.tracking.models import reference
from ml_platform.tracking.server import client
from tests.tracking.conftest import CONTRACT, STATE, log

pytestmark = pytest.mark.slow

BARE = """
import json, sys
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
import ml_platform
frame = model.predict(model.input_example)
print(json.dumps({"code": ml_platform.__file__, "rows": frame.to_dict("records")}))
"""


def artifacts(model: Model) -> Path:
    """Where MLflow keeps the files of a model."""
    place = client().get_logged_model(model.uri.removeprefix("models:/")).artifact_location
    return Path(unquote(urlsplit(place).path))


def test_a_logged_model_says_what_it_is(
    run: TrackingRun, raw_folder: Path, model: Model, train: Dataset
) -> None:
    assert model.digest == digest(raw_folder)
    assert (model.run_id, model.ranks, model.classes) == (run.run_id, 2, ("no", "yes"))
    logged = client().get_logged_model(model.uri.removeprefix("models:/"))
    assert str(logged.status) == "READY"
    assert logged.tags["flow_run"] == "f-1"
    assert logged.tags["ml_platform.family"] == "xgboost"
    assert logged.tags["ml_platform.train_fingerprint"] == train.fingerprint
    assert [out.model_id for out in client().get_run(run.run_id).outputs.model_outputs] == [logged.model_id]


def test_its_description_travels_with_it(model: Model) -> None:
    assert reference(client(), model.uri) == model


def test_what_it_needs_is_pinned(model: Model) -> None:
    pins = (artifacts(model) / "requirements.txt").read_text()
    assert "xgboost" in pins
    assert "tensorflow" not in pins
    assert all("==" in pin for pin in pins.split())


@pytest.mark.long
@pytest.mark.slow
def test_a_bare_process_predicts_with_it(
    model: Model, raw_folder: Path, example: pa.Table, tmp_path: Path
) -> None:
    """No project on its path, another folder: the code comes out of the model."""
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "ML_PLATFORM_HOME"}}
    environment["MLFLOW_TRACKING_URI"] = tracking_uri()
    done = subprocess.run(
        [sys.executable, "-c", BARE, model.uri],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert "code/ml_platform" in answer["code"]
    expected = load_raw_model(raw_folder).to_frame(example)
    assert [row["prediction"] for row in answer["rows"]] == list(expected["prediction"])
    found = [row["probability"] for row in answer["rows"]]
    assert found == pytest.approx(list(expected["probability"]), abs=1e-6)


@pytest.mark.slow
def test_logging_a_network_does_not_import_tensorflow(home: Path, raw_folder: Path, tmp_path: Path) -> None:
    """In a process of its own: this one may have imported it for another test."""
    shutil.copytree(raw_folder, tmp_path / "raw")
    script = f"""
import sys
import pyarrow as pa
from pathlib import Path
from tests.tracking.conftest import CONTRACT, STATE, Dataset, opened
train = Dataset(uri="file:///x/train/1", contract=CONTRACT, rows=1, bytes=1, fingerprint="f")
rows = pa.table({{"age": [1], "income": [2.0], "city": ["Bern"]}})
with opened() as run:
    run.log_model(folder=Path({str(tmp_path / "raw")!r}), family="keras", contract=CONTRACT,
                  classes=STATE.classes, train=train, example=rows)
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_failed_upload_leaves_a_model_marked_as_failed(
    run: TrackingRun, raw_folder: Path, train: Dataset, example: pa.Table, home: Path
) -> None:
    (home / "mlartifacts").mkdir(exist_ok=True)
    (home / "mlartifacts" / "models").write_text("in the way")
    with pytest.raises(TrackingError, match="could not store a model"):
        log(run, raw_folder, train, example)
    experiment = client().get_run(run.run_id).info.experiment_id
    (left,) = client().search_logged_models([experiment])
    assert str(left.status) == "FAILED"


def test_a_fetched_model_is_what_was_logged_and_is_fetched_once(model: Model, raw_folder: Path) -> None:
    folder = fetch(model)
    assert digest(folder) == digest(raw_folder)
    assert load_raw_model(folder).classes == STATE.classes
    shutil.rmtree(artifacts(model))
    assert fetch(model.uri) == folder


def test_a_damaged_copy_is_fetched_again(model: Model) -> None:
    folder = fetch(model)
    (folder / "features.json").write_text("{}")
    assert digest(fetch(model)) == model.digest
    assert [path.name for path in folder.parent.iterdir()] == [model.digest]


def _another_loader(files: Path) -> None:
    mlmodel = yaml.safe_load((files / "MLmodel").read_text())
    mlmodel["flavors"]["python_function"]["loader_module"] = "evil_loader"
    (files / "MLmodel").write_text(yaml.safe_dump(mlmodel))
    (files / "code" / "evil_loader.py").write_text("raise SystemExit('imported')")


def _another_flavor(files: Path) -> None:
    mlmodel = yaml.safe_load((files / "MLmodel").read_text())
    mlmodel["flavors"]["sklearn"] = {"pickled_model": "model.pkl"}
    (files / "MLmodel").write_text(yaml.safe_dump(mlmodel))


def _altered_bytes(files: Path) -> None:
    features = files / "data" / "raw_model" / "features.json"
    features.write_text(features.read_text().replace("Bern", "Rome"))


def _altered_code(files: Path) -> None:
    with (files / "code" / "ml_platform" / "inference" / "raw_model.py").open("a") as code:
        code.write("raise SystemExit('imported')\n")


def _extra_code(files: Path) -> None:
    (files / "code" / "sitecustomize.py").write_text("raise SystemExit('imported')")


def _no_description(files: Path) -> None:
    (files / "MLmodel").write_text("- not a mapping: [")


@pytest.mark.parametrize(
    ("poison", "said"),
    [
        (_another_loader, "loader_module in its MLmodel file is not what was logged"),
        (_another_flavor, "the flavors in its MLmodel file"),
        (_altered_bytes, "its content is not what was logged"),
        (_altered_code, "one of its files is not what was logged"),
        (_extra_code, "one of its files is not what was logged"),
        (_no_description, "no readable MLmodel file"),
    ],
)
def test_a_model_that_was_changed_is_refused_and_nothing_of_it_imported(
    poison: object, said: str, model: Model, home: Path
) -> None:
    poison(artifacts(model))  # type: ignore[operator]
    with pytest.raises(DataError, match=said):
        fetch(model)
    assert "evil_loader" not in sys.modules
    assert not list((home / "models").iterdir())


def test_a_reference_with_another_digest_is_refused(model: Model) -> None:
    with pytest.raises(DataError, match="the digest in MLflow is not what was logged"):
        fetch(model.model_copy(update={"digest": "0" * 64}))


def test_a_description_that_was_changed_is_refused(model: Model) -> None:
    file = artifacts(model) / "MLmodel"
    file.write_text(file.read_text().replace(model.digest, "0" * 64))
    with pytest.raises(DataError, match=r"description of model models:/m-[0-9a-f]+ was altered"):
        reference(client(), model.uri)


def test_a_model_of_somebody_else_is_refused(run: TrackingRun) -> None:
    experiment = client().get_run(run.run_id).info.experiment_id
    foreign = client().create_logged_model(experiment, name="theirs")
    with pytest.raises(DataError, match="was not logged by ml-platform"):
        fetch(f"models:/{foreign.model_id}")


def test_a_model_that_does_not_exist_is_a_usage_error(home: Path) -> None:
    with pytest.raises(SpecError, match="MLflow has no model models:/m-00"):
        fetch("models:/m-00")


def test_the_contract_of_a_reference_is_the_raw_input(model: Model) -> None:
    assert model.contract == CONTRACT.inputs()
