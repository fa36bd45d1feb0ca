"""What registered models reach: the data they were trained on and measured on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError, SpecError, TrackingError
from ml_platform.store.garbage import Reached
from ml_platform.tracking.ledger import search_versions
from ml_platform.tracking.models import DIGEST_TAG, TRAIN_TAG, logged_model
from ml_platform.tracking.registry import JUDGED_ON, MODEL_TAG
from ml_platform.tracking.server import absent, ask, client
from ml_platform.tracking.uris import database_file, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient


def reached() -> Reached:
    """What all registered versions, and so all aliases, were made of.

    Raises:
        TrackingError: MLflow could not be asked.
    """
    file = database_file(tracking_uri())
    if file is not None and not file.exists():
        # Asking would make one.
        return Reached()
    mlflow = client()
    versions = list(search_versions(mlflow, ""))
    found = {text for version in versions for text in _fingerprints(mlflow, version)}
    models = {version.tags[DIGEST_TAG] for version in versions if DIGEST_TAG in version.tags}
    return Reached(fingerprints=frozenset(found), models=frozenset(models))


def _fingerprints(mlflow: MlflowClient, version: Any) -> Iterator[str]:
    """Of the training part, of each holdout, and of whatever else its run said that it read."""
    yield from (tag.removeprefix(JUDGED_ON) for tag in version.tags if tag.startswith(JUDGED_ON))
    if MODEL_TAG in version.tags:
        yield from _trained_on(mlflow, version.tags[MODEL_TAG])
    if version.run_id:
        yield from _read_by(mlflow, version.run_id)


def _trained_on(mlflow: MlflowClient, uri: str) -> Iterator[str]:
    try:
        yield logged_model(mlflow, uri).tags.get(TRAIN_TAG, "")
    except (SpecError, DataError):
        # The version stands, its model was deleted: there is nothing left that was trained.
        return


def _read_by(mlflow: MlflowClient, run_id: str) -> Iterator[str]:
    try:
        run = ask("read a run", mlflow.get_run, run_id)
    except TrackingError as error:
        if absent(error):
            return
        raise
    for given in run.inputs.dataset_inputs if run.inputs else ():
        yield given.dataset.digest
