"""Files in parts that depend on nothing but what is in them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from ml_platform.images.files import ImageFile, list_images
from ml_platform.images.parts import image_parts

FILES = [ImageFile(f"file:///shots/{at}.png", f"{at}.png", 100) for at in range(1000)]
SCHEMA = pa.schema([("path", pa.string()), ("content", pa.binary()), ("unread", pa.string())])


def test_every_file_is_in_one_part_and_parts_are_bounded() -> None:
    parts = image_parts(FILES, most_files=64)
    assert sorted(file.path for part in parts for file in part.files) == sorted(f.path for f in FILES)
    assert all(0 < len(part.files) <= 64 for part in parts)
    assert len(parts) < 2.5 * 1000 / 64
    assert {len(part.files) for part in image_parts(FILES, most_bytes=99)} == {1}
    assert image_parts([]) == []


@pytest.mark.parametrize("at", [0, 500, 999])
def test_a_file_more_or_less_changes_its_own_part_alone(at: int) -> None:
    """Also where that part is halved by it."""
    before = set(image_parts(FILES, most_files=8))
    after = set(image_parts([*FILES[:at], *FILES[at + 1 :]], most_files=8))
    changed = [file for part in before ^ after for file in part.files]
    assert 0 < len({file.path for file in changed}) <= 9
    assert set(image_parts(FILES[::-1], most_files=8)) == before


def test_what_a_part_is_says_what_its_files_hold(tmp_path: Path) -> None:
    """A name, a content, that one cannot be read; not where the folder lies."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x.png").write_bytes(b"x")
    (tmp_path / "one" / "large.png").write_bytes(b"x" * ((64 << 20) + 1))

    def read(folder: str) -> tuple[str, list[dict[str, object]]]:
        (part,) = image_parts(list_images(str(tmp_path / folder)), most_bytes=1 << 30)
        identity, batches = part.read(SCHEMA)
        return identity, [row for batch in batches for row in batch.to_pylist()]

    first, rows = read("one")
    by_path = {row["path"]: row for row in rows}
    assert by_path["x.png"] == {"path": "x.png", "content": b"x", "unread": None}
    assert by_path["large.png"]["content"] is None
    assert "too large" in str(by_path["large.png"]["unread"])
    (tmp_path / "one").rename(tmp_path / "two")
    assert read("two")[0] == first
    (tmp_path / "two" / "x.png").write_bytes(b"y")
    changed = read("two")[0]
    (tmp_path / "two" / "x.png").rename(tmp_path / "two" / "y.png")
    assert len({first, changed, read("two")[0]}) == 3
