"""One partition's file: row groups, checksums, fixed-size columns, failures."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ml_platform.errors import DataError, StoreError
from ml_platform.store.part_file import GROUP_ROWS, write_part


def test_row_groups_are_whole_whatever_the_batches_are(tmp_path: Path) -> None:
    """Readers size their buffers by the row group, so small batches must not make small groups."""
    table = pa.table({"x": np.arange(3 * GROUP_ROWS + 10)})
    path = tmp_path / "part.parquet"
    for size in (1_000, GROUP_ROWS, 200_000):
        part = write_part(table.to_batches(max_chunksize=size), path.as_uri(), table.schema)
        footer = parquet.read_metadata(path)
        groups = [footer.row_group(at).num_rows for at in range(footer.num_row_groups)]
        assert groups == [GROUP_ROWS] * 3 + [10]
        assert parquet.read_table(path).equals(table)
        assert part is not None
        assert part.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (part.rows, part.bytes) == (table.num_rows, path.stat().st_size)
        path.unlink()


def test_no_rows_make_no_file(tmp_path: Path) -> None:
    schema = pa.schema({"x": pa.int64()})
    empty = schema.empty_table().to_batches()
    assert write_part(empty, (tmp_path / "part.parquet").as_uri(), schema) is None
    assert write_part(iter(()), (tmp_path / "part.parquet").as_uri(), schema) is None
    assert not list(tmp_path.iterdir())


def test_columns_whose_values_come_again_have_a_dictionary(tmp_path: Path) -> None:
    """Others would be written more slowly, and into more bytes. What is nested is left as it is."""
    flat = pa.table({"text": ["a", "b"] * 500, "number": np.arange(1000) / 7, "none": pa.nulls(1000)})
    path = tmp_path / "part.parquet"
    for table, expected in ((flat, {"text", "none"}), (flat.append_column("list", [[[1]] * 1000]), None)):
        write_part(table.to_batches(), path.as_uri(), table.schema)
        group = parquet.read_metadata(path).row_group(0)
        columns = [group.column(at) for at in range(group.num_columns)]
        found = {each.path_in_schema for each in columns if each.has_dictionary_page}
        assert found == expected or (expected is None and len(found) == len(columns))
        assert parquet.read_table(path).equals(table)
        path.unlink()


def test_packed_values_are_stored_with_a_fixed_size(tmp_path: Path) -> None:
    schema = pa.schema({"x": pa.binary(8)})
    batch = pa.record_batch({"x": pa.array([b"12345678", b"abcdefgh"], pa.binary())})
    path = tmp_path / "part.parquet"
    write_part([batch], path.as_uri(), schema)
    assert parquet.read_schema(path).field("x").type == pa.binary(8)
    assert parquet.read_metadata(path).schema.column(0).physical_type == "FIXED_LEN_BYTE_ARRAY"


def test_a_value_of_another_size_is_named(tmp_path: Path) -> None:
    batch = pa.record_batch({"x": pa.array([b"123"], pa.binary())})
    with pytest.raises(DataError, match=r"'x' does not hold fixed_size_binary\[8\]"):
        write_part([batch], (tmp_path / "part.parquet").as_uri(), pa.schema({"x": pa.binary(8)}))


def test_a_folder_that_is_gone_is_an_error_with_its_path(tmp_path: Path) -> None:
    """A straggler of a failed write finds its folder removed."""
    table = pa.table({"x": [1]})
    with pytest.raises(StoreError, match=r"gone/part.parquet cannot be written(.|\n)*FileNotFoundError"):
        write_part(table.to_batches(), (tmp_path / "gone" / "part.parquet").as_uri(), table.schema)
