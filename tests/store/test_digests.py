"""That a folder's digest is its content's: every byte and name counts, and nothing else does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_platform.errors import StoreError
from ml_platform.store.digests import digest, file_digest


def filled(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "a.json").write_text("{}")
    (folder / "sub" / "b.bin").write_bytes(b"\0" * 3_000_000)
    return folder


def _byte(folder: Path) -> None:
    with (folder / "sub" / "b.bin").open("r+b") as file:
        file.seek(2_999_999)
        file.write(b"\1")


def _renamed(folder: Path) -> None:
    (folder / "a.json").rename(folder / "c.json")


def _moved(folder: Path) -> None:
    (folder / "a.json").rename(folder / "sub" / "a.json")


def _more(folder: Path) -> None:
    (folder / "empty").write_bytes(b"")


def _less(folder: Path) -> None:
    (folder / "a.json").unlink()


@pytest.mark.parametrize("change", [_byte, _renamed, _moved, _more, _less])
def test_every_change_of_content_shows(change: Callable[[Path], None], tmp_path: Path) -> None:
    folder = filled(tmp_path / "folder")
    before = digest(folder)
    change(folder)
    assert digest(folder) != before


def test_place_times_and_compiled_python_do_not_matter(tmp_path: Path) -> None:
    one, other = filled(tmp_path / "one"), filled(tmp_path / "other")
    os.utime(other / "a.json", (1, 1))
    (other / "__pycache__").mkdir()
    (other / "__pycache__" / "a.pyc").write_bytes(b"x")
    assert digest(one) == digest(other)


def test_names_that_run_into_each_other_differ(tmp_path: Path) -> None:
    for folder, names in (("one", ["ab", "c"]), ("two", ["a", "bc"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text("x")
    assert digest(tmp_path / "one") != digest(tmp_path / "two")


def test_a_link_is_refused(tmp_path: Path) -> None:
    folder = filled(tmp_path / "folder")
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(StoreError, match="is a symbolic link"):
        digest(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no folder .*gone"):
        digest(tmp_path / "gone")
    with pytest.raises(StoreError, match=r"gone\.txt cannot be read"):
        file_digest(tmp_path / "gone.txt")


def test_a_files_digest_is_what_sha256sum_prints(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(tmp_path / "a") == expected
