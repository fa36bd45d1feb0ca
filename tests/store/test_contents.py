"""Digests of files are remembered; what is remembered is a help, never a condition."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from ml_platform.store import contents
from ml_platform.store.contents import content_digests


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


@pytest.mark.parametrize(
    "remembered", ["", "[]", "null", '{"x": 3}', '{"x": ["1"]}', '{"x": [1, 2, 3, 4, 5]}', "\0"]
)
def test_a_damaged_memory_is_forgotten(table: Path, home: Path, remembered: str) -> None:
    home.mkdir()
    (home / "contents.json").write_text(remembered.replace("x", str(table)))
    assert digest(table) == hashlib.sha256(b"a,b").hexdigest()


def test_without_room_to_remember_files_are_read_again(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(contents, "write_atomically", full)
    assert digest(table) == hashlib.sha256(b"a,b").hexdigest()


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
