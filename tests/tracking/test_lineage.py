"""What registered models reach: asked of a real MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_platform.errors import TrackingError
from ml_platform.specs.references import Dataset, Model
from ml_platform.specs.tracking import TrackingRun
from ml_platform.store.garbage import Reached
from ml_platform.store.stamps import stamp
from ml_platform.tracking import register
from ml_platform.tracking.lineage import reached
from ml_platform.tracking.server import client
from ml_platform.tracking.uris import tracking_uri

pytestmark = pytest.mark.slow


def test_a_registered_model_reaches_its_data(run: TrackingRun, model: Model, train: Dataset) -> None:
    """Training part, holdout, and what else its run read; an unregistered one reaches nothing."""
    validation = train.model_copy(update={"fingerprint": "cd" * 32, "uri": "file:///data/validation/1"})
    run.log_input(validation, context="validation")
    assert reached() == Reached()
    register(model, "churn", tags={}, holdout="ef" * 32)
    found = reached()
    assert found.models == {model.digest}
    assert found.fingerprints == {train.fingerprint, "ef" * 32, ("cd" * 32)[:36]}


def test_a_deleted_model_still_has_its_runs_data(run: TrackingRun, model: Model, train: Dataset) -> None:
    run.log_input(train, context="training")
    register(model, "churn", tags={})
    client().delete_logged_model(model.uri.removeprefix("models:/"))
    assert reached().fingerprints == {train.fingerprint[:36]}


def test_without_a_database_nothing_is_registered_and_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "fresh"))
    assert reached() == Reached()
    assert not list((tmp_path / "fresh").iterdir())


def test_a_server_that_is_down_is_an_error_not_an_empty_registry(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError):
        reached()


def test_a_model_has_a_stamp_while_it_is_there_as_it_was_logged(model: Model) -> None:
    before = stamp(model.uri)
    assert before is not None
    assert model.digest in before
    assert stamp(model.uri) == before
    assert stamp("models:/m-0123456789abcdef0123456789abcdef") is None
    assert stamp("models:/churn/1") is None
    client().delete_logged_model(model.uri.removeprefix("models:/"))
    assert stamp(model.uri) is None


def test_a_models_stamp_changes_with_its_files(home: Path, model: Model) -> None:
    before = stamp(model.uri)
    (file,) = home.glob("mlartifacts/models/*/artifacts/data/raw_model/manifest.json")
    file.write_text(file.read_text() + " ")
    assert stamp(model.uri) not in {None, before}
    file.unlink()
    assert stamp(model.uri) != before


def test_a_model_that_was_not_logged_whole_has_no_stamp(run: TrackingRun, model: Model) -> None:
    client().finalize_logged_model(model.uri.removeprefix("models:/"), "FAILED")
    assert stamp(model.uri) is None


def test_without_mlflow_a_models_stamp_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert tracking_uri() == "http://127.0.0.1:9"
    with pytest.raises(TrackingError):
        stamp("models:/m-0123456789abcdef0123456789abcdef")
