"""Where a data set's files lie: one class per kind of storage, named by the scheme of its URI.

A folder is written once: files are staged, published, and then made a data set by its manifest, the
object written last.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import unquote, urlsplit

from ml_platform.errors import StoreError
from ml_platform.store.atomic import sync_folder, write_atomically

FOLDERS: Mapping[str, str] = {"file": "ml_platform.store.folders:LocalFolder"}
"""Kinds of storage by URI scheme. Imported on first use."""


class Folder(Protocol):
    """One data set's folder, on some kind of storage."""

    uri: str

    def __init__(self, uri: str) -> None: ...

    def staged(self) -> contextlib.AbstractContextManager[str]:
        """A place for files that are no data set yet, removed at the end of the block."""

    def publish(self, staged: str, names: Mapping[str, str]) -> None:
        """Give the staged files their final names in this folder; other staged files are dropped."""

    def write_last(self, name: str, content: bytes) -> None:
        """Write one object, whole or not at all."""

    def read(self, name: str) -> bytes:
        """One object's content. FileNotFoundError when it is not there."""

    def size(self, name: str) -> int | None:
        """Bytes of an object; None when it is not there."""

    def file_uri(self, name: str) -> str:
        """URI of one of its files."""

    def remove(self) -> None:
        """Remove the folder and all that is in it."""


def open_folder(uri: str) -> Folder:
    """The folder at `uri`; nothing is touched yet.

    Raises:
        StoreError: No kind of storage serves this scheme.
    """
    scheme = urlsplit(uri).scheme
    if scheme not in FOLDERS:
        raise StoreError(
            f"the store cannot use {uri!r}",
            wanted=" or ".join(f"{known}://…" for known in FOLDERS),
            got=f"{scheme}://" if scheme else "no scheme",
            hint="set ML_PLATFORM_STORE to a folder of this machine",
        )
    module, _, name = FOLDERS[scheme].partition(":")
    kind: type[Folder] = getattr(importlib.import_module(module), name)
    return kind(uri)


def open_sink(uri: str) -> IO[bytes]:
    """A new file at `uri`, open for writing; executors write data files through it."""
    return local_path(uri).open("xb")


def local_path(uri: str) -> Path:
    """The path behind a file:// URI."""
    return Path(unquote(urlsplit(uri).path))


def spark_path(uri: str) -> str:
    """`uri` as Spark's readers take it: not percent-encoded, and without meaning for its glob patterns."""
    return "file://" + re.sub(r"([\\\[\]{}*?])", r"\\\1", str(local_path(uri)))


class LocalFolder:
    """A folder of a file system that driver and executors share."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.path = local_path(uri)

    @contextlib.contextmanager
    def staged(self) -> Iterator[str]:
        staging = self.path.with_name(f"{self.path.name}.tmp-{uuid.uuid4().hex[:8]}")
        staging.mkdir(parents=True)
        try:
            yield staging.as_uri()
        except BaseException:
            self.remove()
            raise
        finally:
            _remove(staging)

    def publish(self, staged: str, names: Mapping[str, str]) -> None:
        staging = local_path(staged)
        for path in staging.iterdir():
            if path.name not in names:
                path.unlink()
        for attempt, name in names.items():
            (staging / attempt).rename(staging / name)
        sync_folder(staging)
        staging.rename(self.path)
        sync_folder(self.path.parent)

    def write_last(self, name: str, content: bytes) -> None:
        write_atomically(self.path / name, content)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def size(self, name: str) -> int | None:
        try:
            return (self.path / name).stat().st_size
        except FileNotFoundError:
            return None

    def file_uri(self, name: str) -> str:
        return (self.path / name).as_uri()

    def remove(self) -> None:
        _remove(self.path)


def _remove(folder: Path) -> None:
    """Remove a folder that a straggler may still be writing to: it no longer finds it by its name."""
    aside = folder.with_name(f"{folder.name}.gone-{uuid.uuid4().hex[:8]}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)
