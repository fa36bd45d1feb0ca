"""Image files in parts: what is read and scored together. A file more or less changes one part, no other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.images.files import ImageFile
from ml_platform.images.read import file_columns
from ml_platform.specs.images import ImageSpec

if TYPE_CHECKING:
    import pyarrow as pa

PART_FILES = 128
PART_BYTES = 64 << 20
"""A part ends at whichever comes first; it is held in a worker's memory."""


@dataclass(frozen=True)
class ImagePart:
    """Some files, in an order of their own."""

    files: tuple[ImageFile, ...]
    most_bytes: int = ImageSpec().most_bytes
    """Of a file. A larger one is not read."""

    @property
    def identity(self) -> str:
        """The files' names: what they hold shows when they are read."""
        return "\n".join(file.path for file in self.files)

    def read(self, schema: pa.Schema) -> tuple[str, Iterator[pa.RecordBatch]]:
        """What the files are by name and content, and their rows: those columns of `read_files` that the
        schema names. Never raises for a file."""
        import pyarrow as pa

        columns = file_columns(self.files, self.most_bytes)
        state = hashlib.sha256()
        found = (columns[name] for name in ("path", "content", "unread"))
        for path, content, why in zip(*found, strict=True):
            held = why if content is None else hashlib.sha256(content).hexdigest()
            state.update(f"{path}\0{held}\n".encode())
        arrays = [pa.array(columns[field.name], field.type) for field in schema]
        return state.hexdigest(), iter([pa.RecordBatch.from_arrays(arrays, schema=schema)])


def image_parts(
    files: Sequence[ImageFile], *, most_files: int = PART_FILES, most_bytes: int = PART_BYTES
) -> list[ImagePart]:
    """Parts of some files each, mixed: dealt by a digest of their paths.

    All files are halved by the first bit of the digest, what is still too much by the next one, and so on. So
    where a part ends depends on nothing but what is in it.

    Args:
        files: With a path of its own each.
        most_files, most_bytes: Of a part. A larger file is a part alone.
    """

    def halved(some: list[tuple[int, ImageFile]], bit: int) -> Iterator[ImagePart]:
        if len(some) < 2 or (len(some) <= most_files and sum(file.bytes for _, file in some) <= most_bytes):
            yield ImagePart(tuple(file for _, file in some))
            return
        for side in (0, 1):
            yield from halved([each for each in some if each[0] >> bit & 1 == side], bit - 1)

    digests = [int.from_bytes(hashlib.sha256(file.path.encode()).digest()) for file in files]
    dealt = sorted(zip(digests, files, strict=True), key=lambda each: each[0])
    return [part for part in halved(dealt, 255) if part.files]
