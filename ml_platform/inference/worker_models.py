"""Models in a Spark worker process: each is loaded once, the last few are kept.

A model travels as a broadcast of its files' bytes, so that it reaches executors on any machine.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.errors import InfrastructureError
from ml_platform.inference.raw_model import RawModel, load_raw_model, read_manifest
from ml_platform.store.digests import digest as folder_digest
from ml_platform.store.leftovers import scratch_folder

KEPT = 3
"""Models that a worker process keeps open."""

LOG_TAIL_LINES = 20

_models: OrderedDict[str, Any] = OrderedDict()
_folders: dict[str, tempfile.TemporaryDirectory[str]] = {}
"""Files of models that read them later too."""


@dataclass(frozen=True)
class ShippedModel:
    """A model on its way to executors: its digest, and a broadcast of {file name: bytes}."""

    digest: str
    files: Any

    def open(self) -> RawModel:
        """The model, loaded if this process has not loaded it yet."""
        model: RawModel = loaded(self.digest, self.files)
        return model


def ship(spark: Any, folder: Path) -> ShippedModel:
    """Broadcast a model folder.

    Raises:
        DataError: The folder is no model folder.
    """
    names = ["manifest.json", *read_manifest(folder).files]
    files = {name: (folder / name).read_bytes() for name in names}
    return ShippedModel(folder_digest(folder), spark.sparkContext.broadcast(files))


def loaded(
    key: str, files: Any, opener: Callable[[Path], Any] = load_raw_model, *, keeps_files: bool = False
) -> Any:
    """The model under this key, from this process's cache or from `files.value`.

    Args:
        key: Digest of the content, and of what else decides how it is opened.
        files: Broadcast of {relative name: bytes}.
        opener: Opens the folder that they are written to.
        keeps_files: Whether the model reads them later too.
    """
    if key not in _models:
        _models[key] = _load(key, files.value, opener, keeps_files=keeps_files)
        while len(_models) > KEPT:
            evicted, _ = _models.popitem(last=False)
            if evicted in _folders:
                _folders.pop(evicted).cleanup()
    _models.move_to_end(key)
    return _models[key]


def _load(key: str, files: Mapping[str, bytes], opener: Callable[[Path], Any], *, keeps_files: bool) -> Any:
    scratch = scratch_folder()
    try:
        for name, content in files.items():
            path = Path(scratch.name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        with _quiet():
            return opener(Path(scratch.name))
    finally:
        if keeps_files:
            _folders[key] = scratch
        else:
            scratch.cleanup()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what libraries print while they start off the terminal; quote it when they fail."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except ImportError as error:
            log.seek(0)
            tail = log.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            raise InfrastructureError(
                "the model's library cannot be imported on this executor", got=error, evidence="\n".join(tail)
            ) from error
        finally:
            os.dup2(saved, 2)
            os.close(saved)
