"""Images that look like photos to a JPEG decoder, packed into Parquet, and who is near to whom."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

SIDE = 256
KINDS = 64
"""Different pictures; others are their copies."""


def write_images(folder: Path, count: int, files: int) -> None:
    """`label` numbers the images; `content` is a JPEG of some 15 KB."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    contents = [_picture(random) for _ in range(min(KINDS, count))]
    for number, part in enumerate(np.array_split(np.arange(count), files)):
        label = pa.array([f"{at:06d}" for at in part])
        content = pa.array([contents[at % len(contents)] for at in part], pa.binary())
        parquet.write_table(pa.table({"label": label, "content": content}), folder / f"{number:03d}.parquet")


def _picture(random: np.random.Generator) -> bytes:
    rough = Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8))
    smooth = np.asarray(rough.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.int16)
    noisy = np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=90)
    return file.getvalue()


def read_features(folder: str) -> np.ndarray:
    """Shape (images, width), in the order of their numbers."""
    table = parquet.read_table(folder, columns=["label", "features"]).sort_by("label")
    rows = table.column("features").to_pylist()
    return np.array(
        [np.frombuffer(row, "<f4") if isinstance(row, bytes) else row for row in rows], np.float32
    )


def difference(folders: list[str]) -> float:
    """The largest between two sets of features, as a share of the largest feature."""
    ours, theirs = map(read_features, folders)
    theirs = theirs[: len(ours)]
    return float(np.abs(ours[: len(theirs)] - theirs).max() / np.abs(theirs).max())
