"""One epoch of a table, as others read it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from pyarrow import parquet
from written import GROUP_ROWS, WIDTH

BATCH_ROWS = 1024


def scan(kind: str, folder: Path, shuffle: bool) -> int:
    """The limit: every column as NumPy sees it, and nothing made of it."""
    rows = 0
    with parquet.ParquetFile(folder / "part.parquet", memory_map=True) as file:
        for batch in file.iter_batches(GROUP_ROWS):
            for column in batch.columns:
                if kind == "packed" and column.type != pa.int32():
                    np.frombuffer(column.buffers()[1], np.float32)
                else:
                    column.to_numpy()
            rows += batch.num_rows
    return rows


def batches(folder: Path) -> Iterator[tuple[Any, Any]]:
    """The first column alone, and the labels."""
    with parquet.ParquetFile(folder / "part.parquet", memory_map=True) as file:
        for batch in file.iter_batches(GROUP_ROWS, columns=["f0", "label"]):
            yield batch.column("f0").to_numpy()[:, None], batch.column("label")


@cache
def parsed(folder: Path, shuffle: bool) -> Any:
    """Batch, then parse: the faster way to read them. Made once for all epochs."""
    spec = {
        "features": tf.io.FixedLenFeature([WIDTH], tf.float32),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def columns(records: Any) -> Any:
        found = tf.io.parse_example(records, spec)
        return found["features"], found["label"]

    data = tf.data.TFRecordDataset(str(folder / "part.tfrecord"))
    if shuffle:
        data = data.shuffle(8 * 2048, seed=0)
    return data.batch(BATCH_ROWS).map(columns, tf.data.AUTOTUNE).prefetch(2)


def records(kind: str, folder: Path, shuffle: bool) -> int:
    """One epoch of them."""
    return sum(int(labels.shape[0]) for _, labels in parsed(folder, shuffle))


def steps(kind: str, folder: Path, shuffle: bool) -> int:
    """What as many steps cost a Python loop where nothing is read or copied: one batch, again and again."""
    rows = parquet.read_metadata(folder / "part.parquet").num_rows
    batch = tf.zeros((BATCH_ROWS, WIDTH)), tf.zeros((BATCH_ROWS,), tf.int32)
    data = tf.data.Dataset.from_tensors(batch).repeat(rows // BATCH_ROWS)
    return sum(int(labels.shape[0]) for _, labels in data)


SIDES = {"scan": scan, "records": records, "steps": steps}
