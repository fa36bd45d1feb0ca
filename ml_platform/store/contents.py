"""What local files hold, as digests; a file that has not changed is not read again.

A digest is remembered by path, size, times, device and inode of the file; not that of one which was changed
less than two seconds before, as a second change may carry the same times.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path

from ml_platform.errors import StoreError
from ml_platform.store.digests import file_digest
from ml_platform.store.location import home

YOUNG_S = 2.0
KEPT_FILES = 2_000_000
"""Whose digests are remembered, at some 250 bytes each: the latest ones."""


def content_digests(paths: Iterable[Path], *, unreadable: str | None = None) -> dict[str, str]:
    """sha256 of each file, by its path as given.

    Args:
        unreadable: Stands for the digest of a file that cannot be read. Empty: such a file is an error.
    Raises:
        StoreError: A file cannot be read.
    """
    wanted = {str(path): path.absolute() for path in paths}
    facts = {str(path): seen for path in wanted.values() if (seen := _facts(path)) is not None}
    known = _recalled(facts)
    found, new = {}, {}
    for given, path in wanted.items():
        name = str(path)
        if name in known:
            found[given] = known[name]
            continue
        try:
            found[given] = file_digest(path)
        except StoreError:
            if unreadable is None:
                raise
            found[given] = unreadable
        else:
            if name in facts:
                new[name] = found[given]
    if new:
        _remember({name: (facts[name], digest) for name, digest in new.items()})
    return found


def _facts(path: Path) -> str | None:
    """What changes when the file does. None where that is not sure: it is not there, was changed just now, or
    will have been changed, as somebody has moved the clock."""
    try:
        seen = path.stat()
    except OSError:
        return None
    if time.time() - max(seen.st_mtime, seen.st_ctime) < YOUNG_S:
        return None
    return f"{seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns} {seen.st_dev} {seen.st_ino}"


def _path() -> Path:
    return home() / "contents.sqlite3"


def _recalled(facts: Mapping[str, str]) -> dict[str, str]:
    """Digests of the files that are as they were. Empty when the memory cannot be read."""
    if not facts or not _path().exists():
        return {}
    ask = "SELECT digest FROM contents WHERE path = ? AND facts = ?"
    found = {}
    try:
        with closing(sqlite3.connect(_path())) as memory:
            for name, seen in facts.items():
                if row := memory.execute(ask, (os.fsencode(name), seen)).fetchone():
                    found[name] = str(row[0])
    except sqlite3.Error:
        return {}
    return found


def _remember(new: Mapping[str, tuple[str, str]]) -> None:
    """Without it, files are read again."""
    try:
        with closing(sqlite3.connect(_path())) as memory, memory:
            memory.execute(
                "CREATE TABLE IF NOT EXISTS contents (path BLOB PRIMARY KEY, facts TEXT, digest TEXT)"
            )
            rows = [(os.fsencode(name), *known) for name, known in new.items()]
            memory.executemany("INSERT OR REPLACE INTO contents VALUES (?, ?, ?)", rows)
            oldest = "(SELECT MAX(rowid) FROM contents) - ?"
            memory.execute(f"DELETE FROM contents WHERE rowid <= {oldest}", (KEPT_FILES,))
    except sqlite3.OperationalError:
        pass  # no room, no right to write there, or somebody else is at it for long
    except sqlite3.DatabaseError:
        # What lies there is no database, or a damaged one.
        with suppress(OSError):
            _path().unlink()
