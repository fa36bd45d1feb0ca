"""Small packed data sets, written without Spark, with a real manifest."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from ml_platform.specs.contracts import Column, Contract
from ml_platform.specs.references import Dataset
from ml_platform.store.manifest import MANIFEST, FileEntry, Manifest


def packed_dataset(
    folder: Path,
    features: NDArray[np.float32],
    labels: NDArray[np.int32] | NDArray[np.float32],
    *,
    files: int = 2,
    group_rows: int = 100,
) -> Dataset:
    """A data set of `files` files with row groups of `group_rows` rows; rows keep their order."""
    width = features.shape[1]
    folder.mkdir(parents=True)
    entries = []
    parts = zip(np.array_split(features, files), np.array_split(labels, files), strict=True)
    for number, (x, y) in enumerate(parts):
        path = folder / f"part-{number:05d}.parquet"
        parquet.write_table(_table(x, y), path, row_group_size=group_rows)
        content = path.read_bytes()
        entries.append(
            FileEntry(
                name=path.name, rows=len(y), bytes=len(content), checksum=hashlib.sha256(content).hexdigest()
            )
        )
    columns = (
        Column(name="label", type="integer" if labels.dtype == np.int32 else "float", nullable=False),
        Column(name="features", type="packed", nullable=False, width=width),
    )
    manifest = Manifest(
        contract=Contract(columns=columns, label="label"),
        rows=len(labels),
        files=tuple(entries),
        fingerprint=hashlib.sha256(features.tobytes() + labels.tobytes()).hexdigest(),
        spark_schema={},
        arrow_schema=base64.b64encode(_table(features[:1], labels[:1]).schema.serialize()).decode(),
        created="2026-01-01T00:00:00Z",
    ).sealed()
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return manifest.reference(folder.as_uri())


def blobs(
    rows: int, *, width: int = 8, classes: int = 3, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Classes that a small network tells apart, not perfectly."""
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(classes, width))
    labels = random.integers(classes, size=rows).astype(np.int32)
    return (centers[labels] + random.normal(size=(rows, width))).astype(np.float32), labels


def _table(features: NDArray[np.float32], labels: NDArray[np.int32]) -> pa.Table:
    width = features.shape[1]
    packed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(4 * width), len(features), [None, pa.py_buffer(np.ascontiguousarray(features).tobytes())]
    )
    return pa.table({"label": pa.array(labels), "features": packed})
