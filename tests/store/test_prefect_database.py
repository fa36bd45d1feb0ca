"""A new home begins with a copy of Prefect's blank database, and never loses one that is in use."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

from ml_platform.store.prefect_database import OF_A_RUN, keep_blank, prepare_database


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def homes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Two; the first one is the platform's own."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setenv("ML_PLATFORM_HOME", str(folders[0]))
    return folders


def _make(home: Path) -> sqlite3.Connection:
    """What a server makes, which writes it back only later."""
    server = sqlite3.connect(home / "prefect.db", isolation_level=None)
    server.execute("PRAGMA journal_mode = WAL")
    for table in (*OF_A_RUN, "block_type"):
        server.execute(f"CREATE TABLE {table} (name)")
    server.execute("INSERT INTO block_type VALUES ('secret')")
    return server


def _blocks(home: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        return database.execute("SELECT name FROM block_type").fetchall()


def test_the_first_home_makes_it_and_the_others_begin_with_a_copy(
    homes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_database()
    assert not (homes[0] / "prefect.db").exists(), "there is no blank yet"
    with closing(_make(homes[0])):
        keep_blank()
    monkeypatch.setenv("ML_PLATFORM_HOME", str(homes[1]))
    prepare_database()
    assert _blocks(homes[1]) == [("secret",)]
    assert list((homes[1] / "scratch").iterdir()) == []


@pytest.mark.parametrize("table", OF_A_RUN)
def test_a_database_with_something_of_a_run_is_no_blank(homes: list[Path], cache: Path, table: str) -> None:
    with closing(_make(homes[0])) as server:
        server.execute(f"INSERT INTO {table} VALUES ('mine')")
        keep_blank()
    assert not cache.exists()


def test_a_database_that_is_there_stays(homes: list[Path]) -> None:
    with closing(_make(homes[0])) as server:
        keep_blank()
        server.execute("INSERT INTO block_type VALUES ('mine')")
        prepare_database()
    assert _blocks(homes[0]) == [("secret",), ("mine",)]


def test_a_cache_that_cannot_be_used_is_no_fault(homes: list[Path], cache: Path) -> None:
    cache.touch()
    with closing(_make(homes[0])):
        keep_blank()
    (homes[0] / "prefect.db").unlink()
    prepare_database()
    assert not (homes[0] / "prefect.db").exists()


def test_a_blank_belongs_to_one_version_of_prefect(homes: list[Path], cache: Path) -> None:
    with closing(_make(homes[0])):
        keep_blank()
    (blank,) = (cache / "ml-platform" / "prefect").iterdir()
    assert blank.name == f"{version('prefect')}.db"
