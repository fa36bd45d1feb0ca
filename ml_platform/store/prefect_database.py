"""The SQLite file of the Prefect servers that this project starts: one per home, new ones from a blank.

Prefect makes its tables by a hundred migrations: 12 s of a processor, and the same file each time. So the
first one is kept in the user's cache (`$XDG_CACHE_HOME` or ~/.cache, folder ml-platform/prefect) under
Prefect's version, before anything of a run is in it, and other homes begin with a copy. Where that fails,
only time is lost.
"""

from __future__ import annotations

import importlib.metadata
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from ml_platform.store.atomic import write_atomically
from ml_platform.store.leftovers import builder
from ml_platform.store.location import home

OF_A_RUN = ("configuration", "flow", "variable", "work_pool")
"""Tables in which a blank has no row."""


def database_url() -> str:
    """As Prefect takes it."""
    return f"sqlite+aiosqlite:///{_database()}"


def prepare_database() -> bool:
    """Give a home that has no database a copy of the blank. Without a blank the server makes its tables.

    Returns:
        Whether there is a database now.
    """
    blank, database = _blank(), _database()
    if database.exists() or not blank.is_file():
        return database.exists()
    copy = home() / "scratch" / f"prefect-{builder()}"
    with suppress(OSError):
        copy.parent.mkdir(exist_ok=True)
        try:
            copy.write_bytes(blank.read_bytes())
            # Unlike a rename, a link never replaces what another command has begun to use.
            os.link(copy, database)
        finally:
            copy.unlink(missing_ok=True)
    return database.exists()


def keep_blank() -> None:
    """Keep the database that a server has just made, unless there is a blank or a run is in it already."""
    blank = _blank()
    if blank.exists():
        return
    with suppress(OSError, sqlite3.Error):
        content = _content(_database())
        if content:
            blank.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(blank, content)


def _content(database: Path) -> bytes:
    """The whole file, also what a server has not written back yet. Empty when something of a run is in it."""
    with closing(sqlite3.connect(database)) as made, closing(sqlite3.connect(":memory:")) as copy:
        made.backup(copy)
        used = any(copy.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in OF_A_RUN)
        return b"" if used else copy.serialize()


def _database() -> Path:
    return home() / "prefect.db"


def _blank() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "ml-platform" / "prefect" / f"{importlib.metadata.version('prefect')}.db"
