"""A data set's folder on a file system that driver and executors share."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from ml_platform.store import crash
from ml_platform.store.atomic import sync_folder, write_atomically
from ml_platform.store.folders import Sink, Source, local_path
from ml_platform.store.leftovers import builder


class LocalFolder:
    """A folder. Its files are written beside it and moved into place together."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.path = local_path(uri)
        self._staging: Path | None = None
        self._is_mine = False

    @staticmethod
    def open_sink(uri: str) -> AbstractContextManager[Sink]:
        return _new_file(local_path(uri))

    @staticmethod
    def open_source(uri: str) -> Source:
        return str(local_path(uri))

    @contextlib.contextmanager
    def staged(self) -> Iterator[str]:
        staging = self.path.with_name(f"{self.path.name}.tmp-{builder()}-{uuid.uuid4().hex[:8]}")
        staging.mkdir(parents=True)
        try:
            yield f"{staging.as_uri()}/"
        except BaseException:
            if self._is_mine:
                self.remove()
            raise
        finally:
            _remove(staging)

    def publish(self, staged: str, names: Mapping[str, str]) -> Mapping[str, str]:
        staging = local_path(staged)
        for path in staging.iterdir():
            if path.name not in names:
                path.unlink()
        for attempt, name in names.items():
            (staging / attempt).rename(staging / name)
        sync_folder(staging)
        self._staging = staging
        return names

    def write_last(self, name: str, content: bytes) -> None:
        """The files and this object appear together, by one rename; it fails where files lie already."""
        if self._staging is None or self.path.exists():
            raise FileExistsError(errno.EEXIST, "another writer was first", str(self.path))
        write_atomically(self._staging / name, content)
        crash.point(f"before {self.path.parent.name} appears")
        try:
            self._staging.rename(self.path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise FileExistsError(errno.EEXIST, "another writer was first", str(self.path)) from error
            raise
        self._is_mine = True
        sync_folder(self.path.parent)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def sizes(self) -> Mapping[str, int]:
        try:
            return {path.name: path.stat().st_size for path in self.path.iterdir()}
        except FileNotFoundError:
            return {}

    def file_uri(self, name: str) -> str:
        return (self.path / name).as_uri()

    def remove(self) -> None:
        _remove(self.path)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Sink]:
    file = path.open("xb")
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _remove(folder: Path) -> None:
    """Remove a folder that a straggler may still be writing to: it no longer finds it by its name."""
    aside = folder.with_name(f"{folder.name}.gone-{uuid.uuid4().hex[:8]}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)
