"""Digests of files are remembered; what is remembered is a help, never a condition."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from ml_platform.errors import StoreError
from ml_platform.store import contents
from ml_platform.store.contents import content_digests
from ml_platform.store.digests import file_digest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A file of an hour ago."""
    path = tmp_path / "table.csv"
    path.write_text("a,b")
    os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    return path


def digest(path: Path) -> str:
    (found,) = content_digests([path]).values()
    return found


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names: list[str] = []

    def noted(path: Path) -> str:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(contents, "file_digest", noted)
    return names


def age(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed just now counts as old: no program can set a time of change."""
    monkeypatch.setattr(contents, "YOUNG_S", 0)


@pytest.fixture
def aged(table: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    age(monkeypatch)
    return table


def test_what_has_not_changed_is_not_read_again(aged: Path, read: list[str]) -> None:
    assert digest(aged) == digest(aged) == hashlib.sha256(b"a,b").hexdigest()
    assert read == ["table.csv"]


def test_each_change_is_seen(aged: Path, read: list[str]) -> None:
    """Of content alone, with size and time of the old one; and another file in its place."""
    digest(aged)
    times = aged.stat()
    with aged.open("r+b") as file:
        file.write(b"b,a")
    os.utime(aged, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest(aged) == hashlib.sha256(b"b,a").hexdigest()
    (aged.parent / "other").write_bytes(b"a,a")
    (aged.parent / "other").replace(aged)
    assert digest(aged) == hashlib.sha256(b"a,a").hexdigest()
    assert read == ["table.csv"] * 3


def test_the_digest_of_a_file_changed_just_now_is_not_remembered(
    table: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second change within a tick of the clock would carry the same times, and never be seen."""
    digest(table)
    age(monkeypatch)
    digest(table)
    assert read == ["table.csv"] * 2


def test_a_file_that_cannot_be_read_stands_for_itself_if_asked(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert content_digests([gone], unreadable="?") == {str(gone): "?"}
    with pytest.raises(StoreError, match="gone cannot be read"):
        content_digests([gone])


def test_names_that_are_no_text_are_remembered(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    path.write_bytes(b"a,b")
    age(monkeypatch)
    assert digest(path) == digest(path) == hashlib.sha256(b"a,b").hexdigest()
    assert len(read) == 1


def test_a_damaged_memory_is_forgotten(aged: Path, home: Path, read: list[str]) -> None:
    """Also one that was cut short; it is begun anew."""
    digest(aged)
    memory = home / "contents.sqlite3"
    for damaged in (b"no database at all, but long enough to be one" * 10, memory.read_bytes()[:5000]):
        memory.write_bytes(damaged)
        for _ in range(3):
            assert digest(aged) == hashlib.sha256(b"a,b").hexdigest()
    assert 3 <= len(read) <= 5, "read until there is a memory again"


def test_without_a_right_to_remember_files_are_read_again(aged: Path, home: Path, read: list[str]) -> None:
    (home / "contents.sqlite3").mkdir(parents=True)
    assert digest(aged) == digest(aged) == hashlib.sha256(b"a,b").hexdigest()
    assert len(read) == 2


def test_the_oldest_digests_are_forgotten(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "KEPT_FILES", 2)
    for name in "abc":
        (tmp_path / name).write_text(name)
    age(monkeypatch)
    for name in "abccba":
        digest(tmp_path / name)
    assert read == ["a", "b", "c", "a"]


def test_a_file_of_the_future_is_read_each_time(table: Path) -> None:
    """The clock jumped back: a time of change that is yet to come vouches for nothing."""
    tomorrow = time.time() + 86_400
    os.utime(table, (tomorrow, tomorrow))
    assert digest(table) == hashlib.sha256(b"a,b").hexdigest()
    content = table.read_bytes()
    with table.open("r+b") as file:  # in place: same size, same inode
        file.write(b"b,a")
    os.utime(table, (tomorrow, tomorrow))
    assert digest(table) == hashlib.sha256(b"b,a").hexdigest() != hashlib.sha256(content).hexdigest()
