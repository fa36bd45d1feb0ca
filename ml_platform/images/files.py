"""Image files, wherever fsspec reaches: listed once, in one order, with what their folder says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ml_platform.errors import DataError
from ml_platform.store.contents import content_digests

_WILD = "*?["
HASHED_BYTES = 1 << 20
UNREADABLE = "unreadable"
LOCAL = "file://"


@dataclass(frozen=True)
class ImageFile:
    """One file that may be an image."""

    uri: str
    path: str
    """Below the folder that was asked for, with `/` between its parts. Names the file wherever it lies."""
    bytes: int
    """As listed."""

    @property
    def label(self) -> str | None:
        """Name of the folder that holds it; None at the top."""
        return PurePosixPath(self.path).parent.name or None


def list_images(source: str) -> list[ImageFile]:
    """Every file below a folder, of a glob, or one file; in the order of their paths.

    Files and folders whose names begin with `.` or `_` are left out. A link to a file is a file, also where
    it leads nowhere; links to folders are not followed. Whether a file is an image shows when it is decoded.

    Args:
        source: A path or URI; `*`, `**` and `?` are wildcards, unless a file or folder has that very name.
    Raises:
        DataError: Nothing is there.
    """
    system, root, found = _found(source)
    files = []
    for path, size in found:
        inside = path[len(root) :].lstrip("/") or PurePosixPath(path).name
        if not any(part.startswith((".", "_")) for part in inside.split("/")):
            files.append(ImageFile(system.unstrip_protocol(path), inside, size))
    if not files:
        raise DataError(
            f"{source} holds no files", wanted="images, in folders named after their classes or not"
        )
    return sorted(files, key=lambda file: file.path)


def read_bytes(uri: str, most: int) -> bytes:
    """The content of a file.

    Raises:
        DataError: It is larger than `most` bytes. Nothing was read then.
        OSError: It cannot be read.
    """
    system, path = _system(uri)
    size = system.size(path)
    if size is not None and size > most:
        raise DataError(f"a file of {size:,} bytes is too large", wanted=f"at most {most:,} bytes")
    content: bytes = system.cat_file(path)
    return content


def images_identity(source: str) -> str:
    """A digest of the files' paths and contents: it changes when any of them does.

    A file that cannot be read has no content: that is its row's error later on, and another identity once it
    can be read.
    """
    files = list_images(source)
    local = (Path(file.uri.removeprefix(LOCAL)) for file in files if file.uri.startswith(LOCAL))
    known = content_digests(local, unreadable=UNREADABLE)
    identity = hashlib.sha256()
    for file in files:
        content = known.get(file.uri.removeprefix(LOCAL)) or _digest(file.uri)
        identity.update(f"{file.path}\0{content}\n".encode())
    return identity.hexdigest()


def _digest(uri: str) -> str:
    system, path = _system(uri)
    content = hashlib.sha256()
    try:
        with system.open(path, "rb") as file:
            while block := file.read(HASHED_BYTES):
                content.update(block)
    except OSError:
        return UNREADABLE
    return content.hexdigest()


def _system(uri: str) -> tuple[Any, str]:
    """Its file system, and the path there. A `#` or a `%` in a name is just that."""
    import fsspec

    protocol, separator, path = uri.partition("://")
    system = fsspec.filesystem(protocol if separator else "file")
    return system, path if separator and protocol == "file" else system._strip_protocol(uri)


def _found(source: str) -> tuple[Any, str, Iterator[tuple[str, int]]]:
    """The file system, the folder that paths are relative to, and each file with its size."""
    try:
        system, path = _system(source)
        path = system._strip_protocol(path)
        if system.isdir(path):
            return system, path, _sizes(system, system.find(path, detail=True))
        if system.isfile(path):
            return system, _parent(path), _sizes(system, {path: system.info(path)})
        if any(sign in path for sign in _WILD):
            fixed = path[: min(path.index(sign) for sign in _WILD if sign in path)]
            return system, _parent(fixed), _sizes(system, system.glob(path, detail=True))
    except (ImportError, ValueError, OSError) as error:
        raise DataError(f"{source} cannot be listed", got=error) from error
    raise DataError(f"{source} does not exist", wanted="a folder of images, a file or a glob")


def _sizes(system: Any, entries: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for path, entry in entries.items():
        if entry["type"] == "file" or (entry.get("islink") and not system.isdir(path)):
            yield path, entry["size"]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
