"""Models on this machine: fetched once, checked against what was recorded when they were logged.

Opening a model runs its code, so what was changed since is refused before anything of it is imported.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from ml_platform.errors import DataError, StoreError
from ml_platform.specs.references import Model, Version
from ml_platform.store.digests import digest
from ml_platform.store.leftovers import builder
from ml_platform.store.location import home
from ml_platform.tracking.models import (
    DIGEST_TAG,
    FILES_TAG,
    LOADER,
    RAW_FOLDER,
    REFUSED,
    download,
    logged_model,
    read_mlmodel,
)
from ml_platform.tracking.registry import find
from ml_platform.tracking.server import client


def fetch(model: Model | Version | str) -> Path:
    """The raw-model folder of a model, downloaded once and kept under `home()/models`.

    Args:
        model: A reference, or a URI: models:/<model id>, models:/<name>/<version>, models:/<name>@<alias>.
    Returns:
        A folder whose files are, byte for byte, those that were logged. Read only.
    Raises:
        SpecError: There is no such model.
        DataError: It is not ours, or it was altered; nothing of it was imported.
        TrackingError: MLflow did not hand it out.
    """
    wanted = _reference(model)
    logged = logged_model(client(), wanted if isinstance(wanted, str) else wanted.uri)
    recorded = logged.tags[DIGEST_TAG]
    if isinstance(wanted, Model) and wanted.digest != recorded:
        raise _altered(wanted.uri, "the digest in MLflow", wanted.digest, recorded)
    kept = _folder() / recorded
    if not _is_whole(kept, recorded):
        _download(logged, kept)
    return kept


def _reference(model: Model | Version | str) -> Model | str:
    if isinstance(model, Version):
        return model.model
    if isinstance(model, Model):
        return model
    name = model.removeprefix("models:/")
    return find(model).model if "/" in name or "@" in name else model


def _folder() -> Path:
    folder = home() / "models"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _is_whole(kept: Path, recorded: str) -> bool:
    """Whether the kept copy is what was logged; a damaged one is thrown away."""
    if not kept.is_dir():
        return False
    if digest(kept) == recorded:
        return True
    shutil.rmtree(kept)
    return False


def _download(logged: Any, kept: Path) -> None:
    uri = f"models:/{logged.model_id}"
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=f".download-{builder()}-") as scratch:
        saved = download(logged.artifact_location, Path(scratch))
        _check_loader(read_mlmodel(saved / "MLmodel", uri), uri)
        _check_bytes(saved, uri, logged.tags)
        try:
            (saved / RAW_FOLDER).rename(kept)
        except OSError as error:
            # Another process was first: its copy passed the same checks.
            if not kept.is_dir():
                raise StoreError(f"model {uri} cannot be kept in {kept}", got=error) from error


def _check_loader(mlmodel: dict[str, Any], uri: str) -> None:
    flavors = mlmodel.get("flavors") or {}
    opens = flavors.get("python_function") or {}
    expected = {"loader_module": LOADER, "data": RAW_FOLDER, "code": "code"}
    for field, value in expected.items():
        if opens.get(field) != value:
            raise _altered(uri, f"{field} in its MLmodel file", value, opens.get(field))
    if set(flavors) != {"python_function"}:
        raise _altered(uri, "the flavors in its MLmodel file", "python_function", ", ".join(sorted(flavors)))


def _check_bytes(saved: Path, uri: str, tags: dict[str, str]) -> None:
    parts = (("its content", saved / RAW_FOLDER, DIGEST_TAG), ("one of its files", saved, FILES_TAG))
    for what, folder, tag in parts:
        found = digest(folder)
        if found != tags[tag]:
            raise _altered(uri, what, f"sha256 {tags[tag]}", f"sha256 {found}")


def _altered(uri: str, what: str, wanted: object, got: object) -> DataError:
    return DataError(
        f"model {uri} is refused: {what} is not what was logged", wanted=wanted, got=got, hint=REFUSED
    )
