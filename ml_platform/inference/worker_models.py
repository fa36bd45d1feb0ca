"""Models in a Spark worker process: each is loaded once, the last few are kept as long as they are small.

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
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ml_platform.errors import InfrastructureError
from ml_platform.inference.raw_model import (
    BACKBONE,
    FAMILIES,
    RawModel,
    load_raw_model,
    read_manifest,
)
from ml_platform.resources.spark_daemon import TENSORFLOW
from ml_platform.store.digests import digest as folder_digest
from ml_platform.store.leftovers import scratch_folder

KEPT = 3
"""Models that a worker process keeps open, if they are not too large together."""
KEPT_BYTES = 1 << 30
"""Of the kept models' files together; in memory a model is about as large. The newest one is always kept."""

LOG_TAIL_LINES = 20


class _Kept(NamedTuple):
    """An open model, how large its files are, and where they are if it reads them later too."""

    model: Any
    bytes: int
    folder: tempfile.TemporaryDirectory[str] | None


@cache
def _models() -> OrderedDict[str, _Kept]:
    """Those of this process. Behind a function: what it holds at the moment is no part of a key."""
    return OrderedDict()


@dataclass(frozen=True)
class ShippedModel:
    """A model on its way to executors: its digest, and a broadcast of {file name: bytes}."""

    digest: str
    files: Any
    imports: tuple[str, ...] = ()
    """What its library takes long to import."""

    def open(self) -> RawModel:
        """The model, loaded if this process has not loaded it yet."""
        model: RawModel = loaded(self.digest, self.files)
        return model


def ship(spark: Any, folder: Path) -> ShippedModel:
    """Broadcast a model folder.

    Raises:
        DataError: The folder is no model folder.
    """
    manifest = read_manifest(folder)
    names = ["manifest.json", *manifest.files]
    files = {name: (folder / name).read_bytes() for name in names}
    imports = TENSORFLOW if BACKBONE in names else FAMILIES[manifest.family].imports
    return ShippedModel(folder_digest(folder), spark.sparkContext.broadcast(files), imports)


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
    if key not in _models():
        content = files.value
        _make_room(sum(map(len, content.values())))
        _models()[key] = _load(content, opener, keeps_files=keeps_files)
    _models().move_to_end(key)
    return _models()[key].model


def _make_room(size: int) -> None:
    """Let go of the models that were used longest ago, until one of this size has its place."""
    while _models() and (len(_models()) >= KEPT or size + _kept_bytes() > KEPT_BYTES):
        _, evicted = _models().popitem(last=False)
        if evicted.folder is not None:
            evicted.folder.cleanup()


def _kept_bytes() -> int:
    return sum(kept.bytes for kept in _models().values())


def _load(files: Mapping[str, bytes], opener: Callable[[Path], Any], *, keeps_files: bool) -> _Kept:
    scratch = scratch_folder()
    keeping = False
    try:
        for name, content in files.items():
            path = Path(scratch.name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        with _quiet():
            model = opener(Path(scratch.name))
        keeping = keeps_files
        return _Kept(model, sum(map(len, files.values())), scratch if keeping else None)
    finally:
        if not keeping:
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
