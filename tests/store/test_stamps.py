"""Stamps: the same while nothing changed, another after every change, none when nothing is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_platform.errors import StoreError
from ml_platform.store.stamps import stamp


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder [x]%20"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.json").write_text("{}")
    (folder / "sub" / "b.bin").write_bytes(b"12345")
    return folder


def _edited_in_place(folder: Path) -> None:
    """The same size, and the clock of the edit set back to a minute before."""
    before = (folder / "a.json").stat()
    (folder / "a.json").write_text("[]")
    os.utime(folder / "a.json", ns=(before.st_atime_ns, before.st_mtime_ns - 60 * 10**9))


def _replaced_with_its_time(folder: Path) -> None:
    """The same size and time in another file."""
    before = (folder / "a.json").stat()
    (folder / "new").write_text("[]")
    os.utime(folder / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (folder / "new").rename(folder / "a.json")


def _grown(folder: Path) -> None:
    (folder / "sub" / "b.bin").write_bytes(b"123456")


def _less(folder: Path) -> None:
    (folder / "sub" / "b.bin").unlink()


def _more(folder: Path) -> None:
    (folder / "sub" / "c").touch()


def _emptier(folder: Path) -> None:
    _less(folder)
    (folder / "sub").rmdir()


def _renamed(folder: Path) -> None:
    (folder / "a.json").rename(folder / "b.json")


def _moved(folder: Path) -> None:
    (folder / "a.json").rename(folder / "sub" / "a.json")


@pytest.mark.parametrize(
    "change",
    [_edited_in_place, _replaced_with_its_time, _grown, _less, _more, _emptier, _renamed, _moved],
)
def test_every_change_below_a_folder_shows(folder: Path, change: Callable[[Path], None]) -> None:
    before = stamp(folder.as_uri())
    assert stamp(folder.as_uri()) == before
    change(folder)
    after = stamp(folder.as_uri())
    assert after is not None
    assert after != before


def test_a_path_and_its_uri_have_one_stamp(folder: Path) -> None:
    assert stamp(str(folder)) == stamp(folder.as_uri())
    assert stamp(str(folder / "a.json")) == stamp((folder / "a.json").as_uri())


def test_a_file_has_a_stamp_of_its_own(folder: Path) -> None:
    before = stamp((folder / "a.json").as_uri())
    _edited_in_place(folder)
    assert stamp((folder / "a.json").as_uri()) not in {None, before}


@pytest.mark.parametrize("gone", ["gone", "a.json/below"])
def test_nothing_has_no_stamp(folder: Path, gone: str) -> None:
    assert stamp(f"{folder.as_uri()}/{gone}") is None


def test_links_are_followed_and_circles_end(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("1")
    (folder / "link").symlink_to(outside)
    (folder / "circle").symlink_to(folder)
    (folder / "nowhere").symlink_to(tmp_path / "nowhere")
    before = stamp(str(folder))
    assert stamp(str(folder)) == before
    (outside / "x").write_text("22")
    assert stamp(str(folder)) not in {None, before}


def test_a_scheme_that_nothing_serves_is_refused() -> None:
    with pytest.raises(StoreError, match=r"'ftp://host/x' is unchanged(.|\n)*file:, s3:, models:"):
        stamp("ftp://host/x")


def test_what_may_not_be_looked_at_is_an_error_not_an_absence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be looked at"):
        stamp(str(tmp_path / ("x" * 300)))
