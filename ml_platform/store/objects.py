"""Small objects by key, below one URI: what results and garbage collection stand on.

A key is a path with slashes, such as `ab12…/cd34….json`. An object is there whole or not at all, as far as
the storage can promise it without waiting for a disk; whoever reads checks what he reads.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from ml_platform.errors import StoreError
from ml_platform.specs.registry import load_named
from ml_platform.store import crash
from ml_platform.store.folders import local_path, scheme_of
from ml_platform.store.leftovers import builder

OBJECTS: Mapping[str, str] = {
    "file": "ml_platform.store.objects:LocalObjects",
    "s3": "ml_platform.store.s3_objects:S3Objects",
}
"""Kinds of storage by URI scheme. Imported on first use."""
BUILDING = ".building-"
"""In the names of files that are not whole yet. A killed writer leaves one."""


class Entry(NamedTuple):
    """An object in a listing."""

    key: str
    bytes: int
    modified: float
    """Seconds since 1970, by the clock of the storage."""


class Objects(Protocol):
    """Objects below one URI."""

    uri: str

    def __init__(self, uri: str) -> None: ...

    def read(self, key: str) -> bytes:
        """Content of an object. FileNotFoundError when it is not there, another OSError on trouble."""

    def write(self, key: str, content: bytes) -> None:
        """Put an object there, or in place of another. OSError on trouble: then nothing changed."""

    def holds(self, prefix: str) -> bool:
        """Whether there is an object below the folder `prefix`."""

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """All objects below the folder `prefix`, those that a killed writer left half-written too."""

    def remove(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    def drop_uploads(self, before: float) -> None:
        """Give back what uploads hold that began before then (seconds since 1970) and never ended."""


def open_objects(uri: str) -> Objects:
    """The objects at `uri`; nothing is touched yet.

    Raises:
        StoreError: No kind of storage serves this scheme.
    """
    scheme = scheme_of(uri)
    if scheme not in OBJECTS:
        raise StoreError(f"the store cannot use {uri!r}", wanted=" or ".join(f"{s}://…" for s in OBJECTS))
    kind: type[Objects] = load_named(OBJECTS[scheme])
    return kind(uri)


class LocalObjects:
    """Files of a file system. Their keys are paths below one folder."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._root = str(local_path(uri))

    def read(self, key: str) -> bytes:
        handle = os.open(f"{self._root}/{key}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read_whole(handle)
        finally:
            os.close(handle)

    def write(self, key: str, content: bytes) -> None:
        """As promised; without fsync, so that after a power cut the object may be torn."""
        path = f"{self._root}/{key}"
        folder = path.rpartition("/")[0]
        temporary = f"{self._root}/{BUILDING}{builder()}-{next(_written)}"
        handle = _create(temporary, self._root)
        try:
            _write_whole(handle, content)
            crash.point(f"before {'code' if folder.endswith('/code') else 'a result'} appears")
            _rename(temporary, path, folder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)  # noqa: PTH108
            raise

    def holds(self, prefix: str) -> bool:
        try:
            with os.scandir(f"{self._root}/{prefix}") as entries:
                return any(not entry.name.startswith(BUILDING) for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        folder = f"{self._root}/{prefix}".rstrip("/")
        start = len(self._root) + 1
        for found in _files(folder):
            try:
                facts = found.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield Entry(found.path[start:], facts.st_size, facts.st_mtime)

    def drop_uploads(self, before: float) -> None:
        """Nothing here is uploaded."""

    def remove(self, key: str) -> None:
        """Remove an object, and its folder when it was the last one there."""
        path = f"{self._root}/{key}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
        # Another writer may be at work there: then the folder is not empty, or it makes it anew.
        with contextlib.suppress(OSError):
            os.rmdir(path.rpartition("/")[0])  # noqa: PTH106


_written = itertools.count()
"""A builder is one process, and this is its own count: together they name a file that nobody else writes."""


def _create(path: str, folder: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, flags, 0o644)
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    return os.open(path, flags, 0o644)


def _rename(temporary: str, path: str, folder: str) -> None:
    """A hot path: a Path costs as much as the call."""
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            return os.rename(temporary, path)  # noqa: PTH104
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    return os.rename(temporary, path)  # noqa: PTH104


def _write_whole(handle: int, content: bytes) -> None:
    """Write all of it and close the file: some file systems refuse only then."""
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
    finally:
        os.close(handle)


def _read_whole(handle: int) -> bytes:
    size = os.fstat(handle).st_size
    content = os.read(handle, size + 1)
    if len(content) == size:
        return content
    parts = [content]
    while part := os.read(handle, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        else:
            yield entry
