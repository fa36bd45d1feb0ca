"""Digests of files and folders: how a model proves that it is the one that was logged."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ml_platform.errors import StoreError

CHUNK_BYTES = 1 << 20
NOT_CONTENT = "__pycache__"
"""Python writes these folders beside code when it runs it; they belong to nobody's content."""


def file_digest(path: Path) -> str:
    """sha256 of one file, as 64 hexadecimal digits.

    Raises:
        StoreError: The file cannot be read.
    """
    state = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                state.update(chunk)
    except OSError as error:
        raise StoreError(f"{path} cannot be read", got=f"{type(error).__name__}: {error.strerror}") from error
    return state.hexdigest()


def digest(folder: Path) -> str:
    """sha256 over the sorted (relative name, sha256) of every file below `folder`.

    Where the folder lies, times, permissions and empty folders do not matter; a renamed file does.

    Raises:
        StoreError: The folder is missing, holds a symbolic link, or a file cannot be read.
    """
    state = hashlib.sha256()
    for name, path in sorted(_files(folder)):
        # A length before the name: names that run into each other cannot collide.
        state.update(f"{len(name.encode())}:{name}:{file_digest(path)}\n".encode())
    return state.hexdigest()


def _files(folder: Path) -> list[tuple[str, Path]]:
    if not folder.is_dir():
        raise StoreError(f"there is no folder {folder}", hint="was it moved or cleaned up while in use?")
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_symlink():
            raise StoreError(
                f"{path} is a symbolic link", wanted="plain files only", hint="copy what it points to"
            )
        if path.is_file() and NOT_CONTENT not in name.parts:
            found.append((name.as_posix(), path))
    return found
