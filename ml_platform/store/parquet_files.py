"""Opening a Parquet file of the store, wherever it lies: in the driver, on executors, in ranks."""

from __future__ import annotations

from typing import Any

from ml_platform.store.folders import open_source

BUFFER_BYTES = 64 << 10
"""Read at once of each column of a local file."""


def open_parquet(uri: str, *, verified: bool = False, memory_map: bool = False) -> Any:
    """A `pyarrow.parquet.ParquetFile`; it closes at the end of a `with`.

    Args:
        verified: Check each page's checksum when it is read.
        memory_map: View a local file instead of copying it; other storage sends what is asked for.
    Raises:
        StoreError: No kind of storage serves the URI's scheme.
        OSError: It is not there, or cannot be read.
        pyarrow.ArrowInvalid: It is no Parquet file.
    """
    from pyarrow import parquet

    source = open_source(uri)
    is_local = isinstance(source, str)
    return parquet.ParquetFile(
        source,
        page_checksum_verification=verified,
        memory_map=memory_map and is_local,
        # A column of a row group is read in pieces, however large the writer made it.
        buffer_size=0 if memory_map or not is_local else BUFFER_BYTES,
        # One request per run of columns, not one per column.
        pre_buffer=not is_local,
    )
