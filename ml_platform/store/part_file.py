"""One partition → one Parquet file, written by pyarrow. Runs on executors; imports no Spark."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from ml_platform.errors import DataError, StoreError
from ml_platform.store.folders import Sink, open_sink

GROUP_ROWS = 65_536
SAMPLE_ROWS = 4_096
GROUP_BYTES = 256 << 20
"""A row group closes at whichever comes first, so that wide tables fit in a worker."""


@dataclass(frozen=True)
class WrittenPart:
    """What the driver needs to know of a file."""

    rows: int
    bytes: int
    checksum: str


def write_part(batches: Iterable[pa.RecordBatch], uri: str, schema: pa.Schema) -> WrittenPart | None:
    """Write all rows to one new file: there, and safe, or not there. Without rows no file is made.

    Args:
        schema: Of the file. Batches are cast to it column by column, whatever their names; a fixed-size
            binary field takes binary values.
    Raises:
        DataError: A value does not fit its field.
        StoreError: The file cannot be written.
    """
    tables = _row_groups(batches, schema)
    first = next(tables, None)
    if first is None:
        return None
    try:
        with open_sink(uri) as sink, _HashedFile(sink) as file:
            rows = _write(file, first, tables, schema)
    except OSError as error:
        got = f"{type(error).__name__}: {error.strerror or error}"
        raise StoreError(f"{uri} cannot be written", got=got) from error
    return WrittenPart(rows=rows, bytes=file.written, checksum=file.checksum)


def _write(file: _HashedFile, first: pa.Table, others: Iterable[pa.Table], schema: pa.Schema) -> int:
    rows = 0
    options = {"compression": "zstd", "write_page_checksum": True, "use_dictionary": _repetitive(first)}
    with parquet.ParquetWriter(file, schema, **options) as writer:
        for table in itertools.chain([first], others):
            writer.write_table(table, row_group_size=GROUP_ROWS)
            rows += table.num_rows
    return rows


def _repetitive(table: pa.Table) -> list[str] | bool:
    """Columns whose values come again: of others a dictionary takes longer to write, and is larger."""
    if any(pa.types.is_nested(field.type) for field in table.schema):
        return True
    some = table.slice(0, SAMPLE_ROWS)
    flat = (field.name for field in table.schema if not pa.types.is_fixed_size_binary(field.type))
    return [name for name in flat if 2 * len(some.column(name).unique()) <= len(some)]


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Batches of any size as tables of one row group each."""
    pending: list[pa.Table] = []
    rows = size = 0
    for batch in batches:
        table = _conform(batch, schema)
        pending.append(table)
        rows, size = rows + table.num_rows, size + table.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            whole = pa.concat_tables(pending)
            group = min(rows, GROUP_ROWS)
            yield whole.slice(0, group)
            pending = [whole.slice(group)]
            rows, size = rows - group, 0
    if rows:
        yield pa.concat_tables(pending)


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    table = pa.Table.from_batches([batch])
    if table.schema.equals(schema):
        return table
    columns = [_cast(table.column(at), field) for at, field in enumerate(schema)]
    return pa.table(columns, schema=schema)


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise DataError(f"column {field.name!r} does not hold {field.type}", got=error) from error


class _HashedFile(io.RawIOBase):
    """Counts and hashes what is written."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._state = hashlib.sha256()
        self.written = 0

    @property
    def checksum(self) -> str:
        return self._state.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        view = memoryview(content)
        self._sink.write(view)
        self._state.update(view)
        self.written += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.written
