"""A file is there whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ml_platform.store import crash
from ml_platform.store.leftovers import builder


def write_atomically(path: Path, content: bytes) -> None:
    """Write next to `path`, fsync, rename over it, fsync the folder."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-{builder()}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        crash.point(f"before {path.name} appears")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
