"""Tables of random float32 as Parquet and TFRecord, a row group at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf
from pyarrow import parquet

WIDTH = 64
GROUP_ROWS = 65_536
NAMES = tuple(f"f{number}" for number in range(WIDTH))


def _parts(rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(1)
    for start in range(0, rows, GROUP_ROWS):
        count = min(GROUP_ROWS, rows - start)
        yield (
            random.normal(size=(count, WIDTH)).astype(np.float32),
            random.integers(10, size=count, dtype=np.int32),
        )


def _packed(features: np.ndarray, labels: np.ndarray) -> pa.Table:
    packed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(4 * WIDTH), len(labels), [None, pa.py_buffer(features.tobytes())]
    )
    return pa.table({"label": labels, "features": packed})


def _columns(features: np.ndarray, labels: np.ndarray) -> pa.Table:
    return pa.table({"label": labels, **{name: features[:, at].copy() for at, name in enumerate(NAMES)}})


def _classes(features: np.ndarray, labels: np.ndarray) -> pa.Table:
    """Two classes that trees can tell apart, and one row in ten that is held out."""
    table = _columns(features, (features[:, :8].sum(axis=1) > 0).astype(np.int32))
    return table.append_column("held_out", pa.array(np.arange(len(labels)) % 10 == 0))


def _write_parquet(table: Callable[..., pa.Table]) -> Callable[[Path, int], None]:
    def write(folder: Path, rows: int) -> None:
        folder.mkdir(parents=True)
        schema = table(*next(_parts(1))).schema
        with parquet.ParquetWriter(folder / "part.parquet", schema, compression="zstd") as writer:
            for part in _parts(rows):
                writer.write_table(table(*part), row_group_size=GROUP_ROWS)

    return write


def _write_records(folder: Path, rows: int) -> None:
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "part.tfrecord")) as writer:
        for features, labels in _parts(rows):
            for values, label in zip(features, labels, strict=True):
                feature = {
                    "features": tf.train.Feature(float_list=tf.train.FloatList(value=values)),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "packed": _write_parquet(_packed),
    "columns": _write_parquet(_columns),
    "classes": _write_parquet(_classes),
    "records": _write_records,
}
