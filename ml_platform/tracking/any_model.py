"""Any model by its URI: ours, anybody's in MLflow, or a file; pinned, and as files on this machine."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ml_platform.errors import DataError, SpecError, StoreError, TrackingError
from ml_platform.inference.flavours import recognise
from ml_platform.specs.references import ModelFiles, Version
from ml_platform.store.digests import digest
from ml_platform.store.leftovers import builder
from ml_platform.store.location import home
from ml_platform.tracking import registry
from ml_platform.tracking.fetching import fetch
from ml_platform.tracking.models import download, model_id
from ml_platform.tracking.server import absent, ask, client

if TYPE_CHECKING:
    from mlflow import MlflowClient


def find_any(uri: str) -> ModelFiles:
    """The model behind a URI, downloaded where it is not here. Nothing of it is opened.

    Args:
        uri: models:/<name>@<alias>, models:/<name>/<version>, models:/<model id>, runs:/<run>/<path>; or a
            path or file:// URI of a Keras file, a SavedModel, a file of XGBoost's, a pickle of scikit-learn's
            or a folder that MLflow wrote.
    Raises:
        SpecError: There is no such model, version or alias.
        DataError: It is nothing that can be scored with, or one of ours that was altered.
        TrackingError: MLflow did not hand it out.
    """
    if not uri.startswith(("models:/", "runs:/")):
        return recognise(local(uri), uri)
    if uri.startswith("runs:/"):
        return _of_run(uri)
    name = uri.removeprefix("models:/")
    if "/" not in name and "@" not in name:
        return _logged(uri, name)
    version = ours(uri)
    return _registered(uri) if version is None else of_version(version)


def ours(uri: str) -> Version | None:
    """The registered version of ours that a URI names; None where it names something else.

    Raises:
        SpecError: There is no such model, version or alias.
    """
    name = uri.removeprefix("models:/")
    if name == uri or ("/" not in name and "@" not in name):
        return None
    try:
        return registry.find(uri)
    except DataError:
        return None


def of_version(version: Version) -> ModelFiles:
    """A registered version of ours, as files."""
    folder = fetch(version)
    return ModelFiles(
        uri=version.uri,
        flavour="raw",
        path=folder.as_uri(),
        digest=version.model.digest,
        name=version.name,
        version=version.version,
    )


def identity(uri: str) -> str:
    """What the URI names now, without a download: the version or alias, or the file's content."""
    if uri.startswith("runs:/"):
        return uri
    if not uri.startswith("models:/"):
        return recognise(local(uri), uri).digest
    name, number = pinned(client(), uri)
    return f"models:/{name}/{number}" if number else uri


def pinned(mlflow: MlflowClient, uri: str) -> tuple[str, str]:
    """Name and version that a URI names now; no version where it names a logged model.

    Raises:
        SpecError: There is none.
    """
    name = uri.removeprefix("models:/")
    if "@" in name:
        name, _, alias = name.partition("@")
        try:
            found = ask("read an alias", mlflow.get_model_version_by_alias, name, alias)
        except TrackingError as error:
            raise SpecError(f"MLflow has no {uri}", got=error.got) from error
        return name, str(found.version)
    name, _, number = name.partition("/")
    return name, number


def local(uri: str) -> Path:
    """The path that a path or file:// URI names. `#`, spaces and other letters stand for themselves.

    Raises:
        SpecError: It is the URI of another kind of place.
    """
    if uri.startswith("file:"):
        return Path(unquote(urlsplit(uri).path)).absolute()
    if "://" in uri:
        raise SpecError(f"{uri} is no model's URI", wanted="models:/…, runs:/…, a path or a file:// URI")
    return Path(uri).expanduser().absolute()


def _of_run(uri: str) -> ModelFiles:
    """A model that a run logged under a name, or as files among its own."""
    mlflow = client()
    run_id, _, name = uri.removeprefix("runs:/").strip("/").partition("/")
    try:
        run = ask("read the run", mlflow.get_run, run_id)
    except TrackingError as error:
        if absent(error):
            raise SpecError(f"MLflow has no run {run_id!r}", got=uri) from error
        raise
    outputs = run.outputs.model_outputs if run.outputs else []
    for output in outputs:
        logged = ask("read the model", mlflow.get_logged_model, output.model_id)
        if logged.name == name:
            return _downloaded(logged.artifact_location, uri, name)
    return _downloaded(f"{run.info.artifact_uri}/{name}", uri, name.rpartition("/")[2])


def _logged(uri: str, name: str) -> ModelFiles:
    """A logged model by its id: ours, or anybody's."""
    with suppress(DataError):
        folder = fetch(uri)
        return ModelFiles(uri=uri, flavour="raw", path=folder.as_uri(), digest=folder.name, name=name)
    found = ask("read the model", client().get_logged_model, model_id(uri))
    return _downloaded(found.artifact_location, uri, name)


def _registered(uri: str) -> ModelFiles:
    """A version that somebody else registered."""
    mlflow = client()
    name, number = pinned(mlflow, uri)
    try:
        found = ask("read a version", mlflow.get_model_version, name, number)
    except TrackingError as error:
        if absent(error):
            raise SpecError(f"MLflow has no version {number} of {name!r}") from error
        raise
    source = str(found.source)
    if source.startswith("models:/"):
        logged = ask("read the model", mlflow.get_logged_model, model_id(source))
        source = str(logged.artifact_location)
    return _downloaded(source, f"models:/{name}/{number}", name, int(number))


def _downloaded(place: str, uri: str, name: str, version: int | None = None) -> ModelFiles:
    """Kept under its digest in the platform's folder."""
    models = home() / "models"
    models.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=f".download-{builder()}-") as scratch:
        saved = download(place, Path(scratch))
        kept = models / f"other-{digest(saved)}"
        if not kept.exists():
            try:
                saved.rename(kept)
            except OSError as error:
                if not kept.is_dir():
                    raise StoreError(f"model {uri} cannot be kept in {kept}", got=error) from error
    return recognise(kept, uri, name=name, version=version)
