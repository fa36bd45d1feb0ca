"""A data set without Spark: files in the store, and the reference to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform import Column, Contract, Dataset

COLUMNS = 16
GROUP_ROWS = 1 << 17


def write_table(folder: Path, size: int) -> Dataset:
    """About `size` bytes of doubles, group by group: this process never holds them all."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    names = [f"x{at}" for at in range(COLUMNS)]
    schema = pa.schema([(name, pa.float64()) for name in names])
    groups = max(1, size // (GROUP_ROWS * COLUMNS * 8))
    with pq.ParquetWriter(
        folder / "part-0.parquet", schema, compression="none", use_dictionary=False
    ) as file:
        for _ in range(groups):
            columns = [random.random(GROUP_ROWS) for _ in names]
            file.write_table(pa.table(columns, schema=schema), row_group_size=GROUP_ROWS)
    contract = Contract(columns=tuple(Column(name=name, type="float") for name in names))
    written = (folder / "part-0.parquet").stat().st_size
    rows = groups * GROUP_ROWS
    return Dataset(uri=folder.as_uri(), contract=contract, rows=rows, bytes=written, fingerprint="generated")
