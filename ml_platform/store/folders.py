"""Where a data set's files lie: one class per kind of storage, named by the scheme of its URI.

A folder is written once: files are staged, published, and then made a data set by its manifest, the
object written last. Whatever fails on the way raises OSError.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from ml_platform.errors import StoreError
from ml_platform.specs.registry import load_named

FOLDERS: Mapping[str, str] = {
    "file": "ml_platform.store.local_folder:LocalFolder",
    "s3": "ml_platform.store.s3_folder:S3Folder",
}
"""Kinds of storage by URI scheme. Imported on first use."""

Source = str | io.IOBase
"""What pyarrow opens: a local path, or a file that can be read anywhere in it."""


class Sink(Protocol):
    """A file that is being written."""

    def write(self, content: Any, /) -> int: ...


class Folder(Protocol):
    """One data set's folder, on some kind of storage."""

    uri: str

    def __init__(self, uri: str) -> None: ...

    @staticmethod
    def open_sink(uri: str) -> AbstractContextManager[Sink]:
        """A new file; it is there, and safe, when the block ends, and not there when the block fails."""

    @staticmethod
    def open_source(uri: str) -> Source:
        """A file, for reading anywhere in it."""

    def staged(self) -> AbstractContextManager[str]:
        """What the URIs of files begin with that are no data set yet.

        A name is put behind it as it is. When the block fails, all that this writer wrote is removed;
        what another writer has put into the folder stays.
        """

    def publish(self, staged: str, names: Mapping[str, str]) -> Mapping[str, str]:
        """Make the staged files part of this folder; other staged files are dropped.

        Where files can be moved together, they appear with the object that is written last.

        Args:
            names: By the names of staged files, those that they should have.
        Returns:
            The names that they have. Storage that cannot rename keeps its own.
        """

    def write_last(self, name: str, content: bytes) -> None:
        """Write one object, whole or not at all. FileExistsError where another writer was first."""

    def read(self, name: str) -> bytes:
        """One object's content. FileNotFoundError when it is not there."""

    def sizes(self) -> Mapping[str, int]:
        """Bytes of each object in the folder, by its name. Empty when there is no folder."""

    def file_uri(self, name: str) -> str:
        """URI of one of its files."""

    def remove(self) -> None:
        """Remove the folder and all that is in it."""


def open_folder(uri: str) -> Folder:
    """The folder at `uri`; nothing is touched yet.

    Raises:
        StoreError: No kind of storage serves this scheme.
    """
    return _kind(uri)(uri)


def open_sink(uri: str) -> AbstractContextManager[Sink]:
    """A new file at `uri`; executors write data files through it. Raises as `open_folder` does."""
    return _kind(uri).open_sink(uri)


def open_source(uri: str) -> Source:
    """The file at `uri`; driver, executors and ranks read data files through it.

    Raises:
        StoreError: No kind of storage serves this scheme.
        OSError: It is not there. Local files are looked for only when they are read.
    """
    return _kind(uri).open_source(uri)


def scheme_of(uri: str) -> str:
    """`s3` of s3://bucket/key, `models` of models:/m-1; empty for a plain path.

    >>> scheme_of("mlflow-artifacts:/1/models"), scheme_of("/a:/b")
    ('mlflow-artifacts', '')
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", uri)
    return found[1] if found else ""


def local_path(uri: str) -> Path:
    """The path behind a file:// URI."""
    return Path(unquote(urlsplit(uri).path))


def spark_path(uri: str) -> str:
    """`uri` as Spark's readers take it: not percent-encoded, and without meaning for its glob patterns."""
    return "file://" + re.sub(r"([\\\[\]{}*?])", r"\\\1", str(local_path(uri)))


def _kind(uri: str) -> type[Folder]:
    scheme = scheme_of(uri)
    if scheme not in FOLDERS:
        raise StoreError(
            f"the store cannot use {uri!r}",
            wanted=" or ".join(f"{known}://…" for known in FOLDERS),
            got=f"{scheme}://" if scheme else "no scheme",
            hint="set ML_PLATFORM_STORE to a folder of this machine, or to s3://bucket/folder",
        )
    kind: type[Folder] = load_named(FOLDERS[scheme])
    return kind
