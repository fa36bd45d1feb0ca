"""Models as MLflow keeps them: a raw-model folder, the code that opens it, and what it promises."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_platform
from ml_platform.errors import DataError, SpecError, TrackingError
from ml_platform.specs.contracts import Contract
from ml_platform.specs.references import Dataset, Model, ModelFamily
from ml_platform.store import stamps
from ml_platform.store.digests import digest
from ml_platform.store.folders import scheme_of
from ml_platform.store.leftovers import scratch_folder
from ml_platform.tracking.server import absent, ask, client
from ml_platform.tracking.signatures import example_frame, signature
from ml_platform.tracking.uris import tracking_uri

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

LOADER = "ml_platform.inference.raw_model"
"""The one module that opens our models; a model that names another is not opened."""
RAW_FOLDER = "data/raw_model"
METADATA = "ml_platform"
FAMILY_TAG = "ml_platform.family"
DIGEST_TAG = "ml_platform.digest"
FILES_TAG = "ml_platform.files_digest"
TRAIN_TAG = "ml_platform.train_fingerprint"

SCORING_PACKAGES = (("numpy",), ("pandas",), ("pyarrow",), ("pydantic",))
FAMILY_PACKAGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "keras": (("tensorflow-cpu", "tensorflow"), ("keras",)),
    "xgboost": (("xgboost-cpu", "xgboost"),),
    "sklearn": (("scikit-learn",), ("skops",)),
    "mllib": (),
    "fine_tuned": (("tensorflow-cpu", "tensorflow"), ("keras",)),
}
"""Packages that a model needs to predict; of several names the first that is installed."""


@dataclass(frozen=True)
class Candidate:
    """A trained model on disk, and what it promises."""

    folder: Path
    family: ModelFamily
    contract: Contract
    classes: tuple[str, ...]
    train: Dataset
    ranks: int


@dataclass(frozen=True)
class Place:
    """The run that logs a model, and the tags that lead from it to the flow run."""

    run_id: str
    experiment_id: str
    tags: Mapping[str, str]


def log_model(mlflow: MlflowClient, candidate: Candidate, place: Place, *, example: pa.Table) -> Model:
    """Log the folder as an MLflow model that `mlflow.pyfunc.load_model` opens anywhere.

    The model's code travels with it. Nothing is predicted here: that would import TensorFlow into the
    flow's own process.

    Args:
        mlflow: Client of the server that keeps it.
        candidate: The raw-model folder (never written to) and its description.
        place: The run that it belongs to.
        example: Raw rows; the first few become the input example.
    Raises:
        TrackingError: MLflow did not take it; what it has of it is marked as failed.
    """
    content = digest(candidate.folder)
    logged = ask(
        "make a model",
        mlflow.create_logged_model,
        place.experiment_id,
        name=candidate.family,
        source_run_id=place.run_id,
        tags=_tags(candidate, content, place),
    )
    model = _reference(candidate, content, place.run_id, str(logged.model_id))
    try:
        _store(mlflow, model, candidate, logged, example)
    except BaseException:
        with suppress(TrackingError):
            ask("mark a model", mlflow.finalize_logged_model, logged.model_id, "FAILED")
        raise
    return model


def model_id(uri: str) -> str:
    """`m-1234` of `models:/m-1234`.

    Raises:
        SpecError: The URI is not that of a logged model.
    """
    scheme, _, name = uri.partition(":/")
    if scheme != "models" or not name or "/" in name or "@" in name:
        raise SpecError(f"{uri!r} is no logged model", wanted="models:/<model id>")
    return name


def logged_model(mlflow: MlflowClient, uri: str) -> LoggedModel:
    """What MLflow knows of a model: tags, place of its files.

    Raises:
        SpecError: There is no such model.
        DataError: It was not logged by this platform.
    """
    try:
        found = ask("read the model", mlflow.get_logged_model, model_id(uri))
    except TrackingError as error:
        if absent(error):
            raise SpecError(f"MLflow has no model {uri}", hint="was it deleted?") from error
        raise
    unknown = [tag for tag in (DIGEST_TAG, FILES_TAG) if tag not in found.tags]
    if unknown:
        raise DataError(
            f"model {uri} was not logged by ml-platform",
            wanted=f"the tags {DIGEST_TAG} and {FILES_TAG}",
            got=f"no {', '.join(unknown)}",
            hint="a model is code: only those that a run of this platform logged are opened",
        )
    return found


def stamp(uri: str) -> str | None:
    """Evidence that a logged model is the one that was logged; see `ml_platform.store.stamps`.

    Returns:
        None when MLflow has no such model, when it is not ours or not whole, or when its files are gone
        from a folder that this machine sees.
    Raises:
        TrackingError: MLflow could not be asked.
    """
    try:
        logged = logged_model(client(), uri)
    except (SpecError, DataError):
        return None
    if str(logged.status) != "READY":
        return None
    parts = [logged.tags[DIGEST_TAG], logged.tags[FILES_TAG]]
    if scheme_of(logged.artifact_location) in {"", "file"}:
        # Not the code beside it: whoever runs it leaves compiled files there.
        parts.append(stamps.stamp(f"{logged.artifact_location}/data") or "")
    return f"model {' '.join(parts)}" if all(parts) else None


def reference(mlflow: MlflowClient, uri: str) -> Model:
    """The reference of a logged model, from the description that is stored with it.

    Raises:
        SpecError: There is no such model.
        DataError: Its description is missing, or is not that of this model.
    """
    logged = logged_model(mlflow, uri)
    with scratch_folder() as scratch:
        file = download(f"{logged.artifact_location}/MLmodel", Path(scratch))
        described = described_by(read_mlmodel(file, uri))
    if described is None or (described.uri, described.digest) != (uri, logged.tags[DIGEST_TAG]):
        raise DataError(f"the description of model {uri} was altered", got=described, hint=REFUSED)
    return described


REFUSED = "it was changed after it was logged; promote another version, and find out who changed it"


def read_mlmodel(file: Path, uri: str) -> dict[str, Any]:
    """The MLmodel file as plain values; nothing that it names is imported."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"model {uri} has no readable MLmodel file", got=error, hint=REFUSED) from error
    return content if isinstance(content, dict) else {}


def described_by(mlmodel: dict[str, Any]) -> Model | None:
    """The reference inside an MLmodel file; None when there is none."""
    text = (mlmodel.get("metadata") or {}).get(METADATA)
    try:
        return None if text is None else Model.model_validate_json(text)
    except ValueError:
        return None


def download(artifact_uri: str, folder: Path) -> Path:
    """Copy a file or folder of MLflow's into `folder`; where it lies then."""
    from mlflow.artifacts import download_artifacts

    return Path(
        ask(
            "hand out a model",
            download_artifacts,
            artifact_uri=artifact_uri,
            dst_path=str(folder),
            tracking_uri=tracking_uri(),
        )
    )


def _store(
    mlflow: MlflowClient, model: Model, candidate: Candidate, logged: LoggedModel, example: pa.Table
) -> None:
    from mlflow.entities import LoggedModelOutput

    with scratch_folder() as scratch:
        saved = _save(Path(scratch), model, candidate, logged, example)
        ask("take tags", mlflow.set_logged_model_tags, logged.model_id, {FILES_TAG: digest(saved)})
        ask("store a model", mlflow.log_model_artifacts, logged.model_id, str(saved))
    output = LoggedModelOutput(logged.model_id, step=0)
    ask("link a model to its run", mlflow.log_outputs, model.run_id, [output])
    ask("mark a model", mlflow.finalize_logged_model, logged.model_id, "READY")


def _save(scratch: Path, model: Model, candidate: Candidate, logged: LoggedModel, example: pa.Table) -> Path:
    """Lay out what MLflow calls a model: MLmodel, data, code, requirements, input example."""
    import mlflow.pyfunc
    from mlflow.models import Model as MlflowModel

    saved = scratch / "model"
    raw = scratch / Path(RAW_FOLDER).name
    raw.symlink_to(candidate.folder.resolve())
    mlflow.pyfunc.save_model(
        path=str(saved),
        loader_module=LOADER,
        data_path=str(raw),
        code_paths=[str(_code(scratch))],
        mlflow_model=MlflowModel(
            artifact_path=logged.artifact_location,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
            run_id=model.run_id,
            metadata={METADATA: model.model_dump_json()},
        ),
        signature=signature(candidate.contract, model.problem),
        input_example=example_frame(example, candidate.contract),
        pip_requirements=_requirements(candidate.family),
    )
    return saved


def _code(scratch: Path) -> Path:
    """A copy of the installed package without what Python compiled."""
    package = Path(ml_platform.__path__[0])
    copied = scratch / "code" / package.name
    shutil.copytree(package, copied, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return copied


def _requirements(family: str) -> list[str]:
    names = (*SCORING_PACKAGES, *FAMILY_PACKAGES[family])
    return [pin for pin in map(_pinned, names) if pin is not None]


def _pinned(names: tuple[str, ...]) -> str | None:
    for name in names:
        with suppress(PackageNotFoundError):
            # A local build's suffix (+cpu) is on no index.
            return f"{name}=={version(name).partition('+')[0]}"
    return None


def _tags(candidate: Candidate, content: str, place: Place) -> dict[str, str]:
    return {
        **place.tags,
        FAMILY_TAG: candidate.family,
        DIGEST_TAG: content,
        TRAIN_TAG: candidate.train.fingerprint,
    }


def _reference(candidate: Candidate, content: str, run_id: str, logged_id: str) -> Model:
    return Model(
        uri=f"models:/{logged_id}",
        family=candidate.family,
        run_id=run_id,
        digest=content,
        contract=candidate.contract.inputs(),
        classes=candidate.classes,
        ranks=candidate.ranks,
    )
