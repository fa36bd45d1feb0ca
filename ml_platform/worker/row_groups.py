"""Reads row groups of Parquet files ahead of need: whole ones into a bounded cache, or piece by piece."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ml_platform.errors import DataError
from ml_platform.worker.columns import Columns, Layout, Rows, rows_of
from ml_platform.worker.lanes import Range, RowGroup

CACHE_BYTES = 288 << 20
"""Decoded row groups that are kept, per rank: what eight lanes need now and next. At least one is."""
WHOLE_SHARE = 16
"""Row groups are decoded as a whole when the cache holds this many of them: two of each of eight lanes."""

PIECE_BYTES = 4 << 20
LEAST_ROWS = 1024
"""Of a piece: each column costs something for each piece."""
DECODERS = 2
"""Threads that decode: the first steps need a piece of each lane, and nothing else can be done till then.
They decode themselves: in Arrow's own pool, which has a thread per core of a rank, they would take turns."""


class RowGroups:
    """Row groups of one data set. One thread reads; others decode what it will need next."""

    def __init__(self, columns: Columns, layout: Layout, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._columns, self._layout, self._limit = columns, layout, cache_bytes
        self._held: OrderedDict[RowGroup, Future[Rows]] = OrderedDict()
        self._bytes = 0
        self._piece_rows = max(LEAST_ROWS, PIECE_BYTES // layout.row_bytes)
        self._decoder = ThreadPoolExecutor(DECODERS, thread_name_prefix="row-groups")

    def rows(self, group: RowGroup) -> Rows:
        """The rows of a row group: the same arrays each time, while it is kept.

        Raises:
            DataError: The row group is corrupt or has empty values.
        """
        decoded = self._decoding(group)
        try:
            return decoded.result()
        except BaseException:
            self._drop(group)
            raise

    def pieces(self, parts: Sequence[Range]) -> Iterator[Rows]:
        """The rows of ranges some megabytes at a time, with no more than two such pieces in memory.

        Raises:
            DataError: As `rows` does.
        """
        pieces = self._pieces(parts)
        ahead = self._decoder.submit(next, pieces, None)
        try:
            while (rows := ahead.result()) is not None:
                ahead = self._decoder.submit(next, pieces, None)
                yield rows
        finally:  # without a wait: the thread that decodes may be the one that lets go of this
            ahead.add_done_callback(lambda _: pieces.close())
            ahead.cancel()

    def _pieces(self, parts: Sequence[Range]) -> Generator[Rows, None, None]:
        for part in parts:
            yield from self._pieces_of(part)

    def _pieces_of(self, part: Range) -> Iterator[Rows]:
        import pyarrow as pa

        at, end = 0, part.offset + part.rows
        parquet = opened(part.group.uri)
        try:
            for batch in parquet.iter_batches(
                self._piece_rows,
                row_groups=[part.group.number],
                columns=self._columns.names,
                use_threads=False,
            ):
                start, at = at, at + batch.num_rows
                if at <= part.offset:
                    continue
                table = pa.Table.from_batches([batch])
                rows = rows_of(table, self._columns, self._layout, _name(part.group))
                yield rows.part(slice(max(part.offset - start, 0), end - start))
                if at >= end:
                    return
        except (pa.ArrowException, OSError) as error:
            raise _corrupt(part.group, error) from error
        finally:
            parquet.close()

    def expect(self, group: RowGroup) -> None:
        """Begin to decode a row group that will be asked for soon."""
        self._decoding(group)

    def _decoding(self, group: RowGroup) -> Future[Rows]:
        decoded = self._held.pop(group, None)
        if decoded is None:
            decoded = self._decoder.submit(self._decode, group)
            self._bytes += group.rows * self._layout.row_bytes
        self._held[group] = decoded
        while self._bytes > self._limit and len(self._held) > 1:
            self._drop(next(iter(self._held)))
        return decoded

    def _drop(self, group: RowGroup) -> None:
        self._held.pop(group)
        self._bytes -= group.rows * self._layout.row_bytes

    def _decode(self, group: RowGroup) -> Rows:
        import pyarrow as pa

        parquet = opened(group.uri)
        try:
            table = parquet.read_row_group(group.number, columns=self._columns.names, use_threads=False)
            return rows_of(table, self._columns, self._layout, _name(group))
        except (pa.ArrowException, OSError) as error:
            raise _corrupt(group, error) from error
        finally:
            parquet.close()


def opened(uri: str) -> Any:
    """A `pyarrow.parquet.ParquetFile`, viewed rather than copied where it is local.

    Raises:
        DataError: It cannot be read, or is no Parquet file.
    """
    import pyarrow as pa

    from ml_platform.store.parquet_files import open_parquet

    try:
        return open_parquet(uri, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{uri} cannot be read as Parquet", got=error) from error


def _name(group: RowGroup) -> str:
    return f"{group.uri}: row group {group.number}"


def _corrupt(group: RowGroup, error: Exception) -> DataError:
    return DataError(f"{_name(group)} cannot be read", got=error)
