"""Models of others in MLflow, and ours: pinned, fetched, and gone."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from ml_platform.errors import DataError, SpecError
from ml_platform.specs.references import Model
from ml_platform.store.folders import local_path
from ml_platform.tracking import registry
from ml_platform.tracking.any_model import find_any, identity, local
from ml_platform.tracking.server import client
from ml_platform.tracking.uris import tracking_uri
from tests.inference.models_of_others import pickled, trees

pytestmark = pytest.mark.slow


@pytest.fixture
def theirs(home: Path, tmp_path: Path) -> str:
    """A pickle that somebody registered with MLflow's own functions. Returns the run's URI of it."""
    import pickle

    estimator = pickle.loads(pickled(tmp_path).path.read_bytes())
    mlflow.set_tracking_uri(tracking_uri())
    try:
        mlflow.set_experiment(experiment_id=client().create_experiment("others", home.as_uri()))
        with mlflow.start_run() as run:
            mlflow.sklearn.log_model(
                estimator, name="their model", registered_model_name="theirs", pip_requirements=[]
            )
    finally:
        mlflow.set_tracking_uri(None)
    client().set_registered_model_alias("theirs", "best", "1")
    return f"runs:/{run.info.run_id}/their model"


def test_a_model_of_others_is_found_by_each_of_its_names(theirs: str) -> None:
    by_alias = find_any("models:/theirs@best")
    assert (by_alias.uri, by_alias.flavour, by_alias.name, by_alias.version) == (
        "models:/theirs/1",
        "sklearn",
        "theirs",
        1,
    )
    assert (local_path(by_alias.path) / by_alias.entry).is_file()
    assert find_any("models:/theirs/1") == by_alias
    assert find_any(theirs).digest == by_alias.digest
    assert identity("models:/theirs@best") == "models:/theirs/1"
    client().delete_model_version("theirs", "1")
    for gone in ("models:/theirs/1", "models:/theirs@best", "models:/nobody/1"):
        with pytest.raises(SpecError):
            find_any(gone)
    assert (local_path(by_alias.path) / by_alias.entry).is_file(), "whoever scores with it can go on"


def test_our_own_models_stay_raw(model: Model, home: Path) -> None:
    version = registry.register(model, "ours", tags={})
    found = find_any("models:/ours/1")
    assert (found.flavour, found.digest, found.uri) == ("raw", version.model.digest, "models:/ours/1")
    assert find_any(model.uri).flavour == "raw"


def test_a_file_is_a_model_under_any_name(tmp_path: Path) -> None:
    path = trees(tmp_path).path
    strange = tmp_path / "trees #2 é?.ubj"
    path.rename(strange)
    for uri in (str(strange), strange.as_uri()):
        assert (find_any(uri).flavour, find_any(uri).name) == ("xgboost", "trees #2 é?")
        assert identity(uri) == find_any(uri).digest
    with pytest.raises(SpecError, match="is no model's URI"):
        local("s3://bucket/model")
    with pytest.raises(DataError, match="there is no model at"):
        find_any(str(path))
