"""Stamps: cheap evidence that what lies at a URI is what lay there before.

No content is read. A stamp is compared with the one of the same URI, nothing else: it holds no promise
about other places.
"""

from __future__ import annotations

import hashlib
import os
import stat as kinds
from collections.abc import Iterator, Mapping

from ml_platform.errors import StoreError
from ml_platform.specs.locations import locations
from ml_platform.specs.registry import load_named
from ml_platform.store.folders import local_path, scheme_of

__all__ = ["STAMPS", "file_stamp", "locations", "path_stamp", "stamp"]

STAMPS: Mapping[str, str] = {
    "": "ml_platform.store.stamps:path_stamp",
    "file": "ml_platform.store.stamps:file_stamp",
    "s3": "ml_platform.store.s3_objects:stamp",
    "models": "ml_platform.tracking.models:stamp",
}
"""Who stamps a URI, by its scheme. Imported on first use."""


def stamp(uri: str) -> str | None:
    """Evidence of what lies at `uri`, as short text; None when nothing does.

    Raises:
        StoreError: No kind of storage serves this scheme, or the storage cannot be asked.
        TrackingError: MLflow cannot be asked.
    """
    scheme = scheme_of(uri)
    if scheme not in STAMPS:
        wanted = ", ".join(f"{known}:" for known in STAMPS if known)
        raise StoreError(f"nothing tells whether {uri!r} is unchanged", wanted=f"a path, or {wanted}")
    found: str | None = load_named(STAMPS[scheme])(uri)
    return found


def file_stamp(uri: str) -> str | None:
    """Of a file:// URI; see `path_stamp`."""
    return path_stamp(str(local_path(uri)))


def path_stamp(path: str) -> str | None:
    """Of a file: size, mtime, inode. Of a folder: a digest over name, size, mtime and inode of all below.

    Raises:
        StoreError: It may not be looked at.
    """
    try:
        facts = os.stat(path)  # noqa: PTH116
        if not kinds.S_ISDIR(facts.st_mode):
            return f"file {_facts(facts)}"
        lines = sorted(_lines(path, "", {(facts.st_dev, facts.st_ino)}))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be looked at", got=error) from error
    return f"folder {hashlib.sha256(repr(lines).encode()).hexdigest()}"


def _facts(facts: os.stat_result) -> str:
    return f"{facts.st_size}-{facts.st_mtime_ns}-{facts.st_ino}"


def _lines(folder: str, below: str, above: set[tuple[int, int]]) -> Iterator[str]:
    """One line per file, and one per folder, so that an empty one counts."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{below}{entry.name}"
            facts = _stat(entry)
            if not kinds.S_ISDIR(facts.st_mode):
                yield f"{name} {_facts(facts)}"
                continue
            yield f"{name}/"
            here = (facts.st_dev, facts.st_ino)
            # A link to a folder above it would never end.
            if here not in above:
                yield from _lines(entry.path, f"{name}/", above | {here})


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except FileNotFoundError:
        # A link to nothing, if it is still there.
        return entry.stat(follow_symlinks=False)
