"""Image files for tests, made on the spot."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def gradient(height: int = 20, width: int = 30, *, seed: int = 0) -> NDArray[np.uint8]:
    """R G B pixels that differ everywhere, and smooth enough for JPEG."""
    y, x = np.mgrid[0:height, 0:width]
    planes = (x * 255 / width, y * 255 / height, (x + y + seed) * 255 / (height + width + seed))
    return np.stack(planes, axis=-1).astype(np.uint8)


def encoded(image: Image.Image | NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """A file's content."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def bomb(height: int = 40_000, width: int = 40_000) -> bytes:
    """A PNG of some bytes that says it is this large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def unreadable(folder: Path) -> None:
    """Puts in two files that nobody can read, root included: one that is forbidden and one that is gone."""
    (folder / "locked.png").symlink_to("/proc/sys/vm/compact_memory")  # its mode is 0200, for all
    (folder / "gone.png").symlink_to(folder / "nowhere.png")


BAD = {
    "empty.jpg": (b"", "empty file"),
    "text.png": (b"hello, I am text", "not an image"),
    "cut.jpg": (encoded(gradient(200, 200), "JPEG")[:2000], "cannot be decoded"),
    "cut.png": (encoded(gradient(200, 200))[:300], "cannot be decoded"),
    "bomb.png": (bomb(), "pixels"),
    "large.png": (bomb(9_000, 9_000), "is too large"),
}
"""Content and a part of the error, by the file's name."""
