"""Where images are: folders, globs, other file systems, names that no URI likes."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from ml_platform.errors import DataError
from ml_platform.images.files import images_identity, list_images, read_bytes
from ml_platform.store import contents
from tests.images.pictures import unreadable

NAMES = ("a b/x#1.png", "grün %20/y?.png", "[c]/d*.png", "top.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*NAMES, "_hidden/z.png", ".DS_Store"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def test_a_folder_gives_every_file_once_with_its_class(folder: Path) -> None:
    for source in (str(folder), f"file://{folder}", str(folder / "**/*.png")):
        files = list_images(source)
        assert [file.path for file in files] == sorted(NAMES)
        assert {file.label for file in files} == {"[c]", "a b", "grün %20", None}
        assert [read_bytes(file.uri, 100).decode() for file in files] == [file.path for file in files]


def test_one_file_and_a_folder_named_like_a_pattern(folder: Path) -> None:
    assert [file.path for file in list_images(str(folder / "a b" / "x#1.png"))] == ["x#1.png"]
    assert [file.path for file in list_images(str(folder / "[c]"))] == ["d*.png"]


def test_any_file_system_of_fsspec() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/shots/cat/1.png": b"one", "/shots/dog/2.png": b"two"})
    try:
        files = list_images("memory://shots")
        assert [(file.path, file.label) for file in files] == [("cat/1.png", "cat"), ("dog/2.png", "dog")]
        assert read_bytes(files[1].uri, 3) == b"two"
    finally:
        memory.rm("/shots", recursive=True)


def test_what_is_not_there_or_too_large_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list_images(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="holds no files"):
        list_images(str(tmp_path / "_hidden" / "*.jpg"))
    with pytest.raises(DataError, match="cannot be listed"):
        list_images("nonsense://x")
    with pytest.raises(DataError, match="7 bytes is too large"):
        read_bytes(f"file://{folder / 'top.png'}", 6)


def test_identity_is_that_of_names_and_contents(folder: Path) -> None:
    before = images_identity(str(folder))
    assert images_identity(f"file://{folder}") == before
    (folder / "top.png").write_bytes(b"top.pnG")
    changed = images_identity(str(folder))
    assert changed != before
    (folder / "top.png").rename(folder / "tip.png")
    assert images_identity(str(folder)) not in (before, changed)


def test_images_that_have_not_changed_are_not_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred thousand of them are asked for at each plan."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(folder / "_home"))
    monkeypatch.setattr(contents, "YOUNG_S", 0)
    before = images_identity(str(folder))
    monkeypatch.setattr(contents, "file_digest", None)
    assert images_identity(str(folder)) == before


def test_links_to_files_are_files_and_what_cannot_be_read_changes_the_identity_once_it_can(
    folder: Path,
) -> None:
    """A link that leads nowhere is an image that is missed, and no reason to stop."""
    unreadable(folder / "a b")
    (folder / "a b" / "link.png").symlink_to(folder / "top.png")
    (folder / "a b" / "elsewhere").symlink_to(folder / "[c]")
    files = {file.path: file for file in list_images(str(folder))}
    assert files.keys() == {*NAMES, "a b/gone.png", "a b/locked.png", "a b/link.png"}
    assert read_bytes(files["a b/link.png"].uri, 100) == b"top.png"
    before = images_identity(str(folder))
    assert images_identity(str(folder)) == before
    for name in ("gone.png", "locked.png"):
        (folder / "a b" / name).unlink()
        (folder / "a b" / name).write_bytes(b"")
        after = images_identity(str(folder))
        assert after != before
        before = after
