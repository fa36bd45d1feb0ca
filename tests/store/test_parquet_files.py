"""Parquet files are read in pieces: memory does not grow with what their writers took for a row group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ml_platform.store.parquet_files import open_parquet


def test_the_first_rows_of_a_large_row_group_take_little_memory(tmp_path: Path) -> None:
    """A worker that scores a file reads it batch by batch."""
    values = np.random.default_rng(0).normal(size=2_000_000)
    parquet.write_table(pa.table({"x": values}), tmp_path / "one.parquet", row_group_size=len(values))
    assert (tmp_path / "one.parquet").stat().st_size > 12 << 20
    with open_parquet((tmp_path / "one.parquet").as_uri(), verified=True) as opened:
        assert opened.metadata.num_row_groups == 1
        before = pa.total_allocated_bytes()
        batches = opened.iter_batches(1024)
        first = next(batches)
        held = pa.total_allocated_bytes() - before
        rows = len(first) + sum(map(len, batches))
    assert held < 6 << 20
    assert rows == len(values)
    np.testing.assert_array_equal(first.column("x").to_numpy(), values[:1024])
