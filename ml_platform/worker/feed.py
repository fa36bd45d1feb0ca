"""Streams Parquet to a rank: never a whole table, and packed columns are viewed, not copied.

Shards are row ranges (`lanes`), decoded a row group ahead (`row_groups`), mixed within a bounded buffer, and
put together as several steps at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ml_platform.errors import DataError
from ml_platform.worker.columns import Columns, Layout, Rows, layout_of
from ml_platform.worker.lanes import Batching, Lane, Range, RowGroup, plan_epoch, plan_span
from ml_platform.worker.mixing import Chosen, Stream, copied, mixed, side_by_side
from ml_platform.worker.row_groups import CACHE_BYTES, WHOLE_SHARE, RowGroups, opened

if TYPE_CHECKING:
    from ml_platform.specs.references import Dataset

CHUNK_BYTES = 16 << 20
"""Steps that are handed over together have about this size."""
EVALUATION_ROWS = 4096
"""Rows per step when each row is read once."""
AHEAD_ROWS = 65_536
"""How many rows before it is needed a lane's row group is decoded."""

PACKED = Columns()


class File(Protocol):
    """A Parquet file of a data set."""

    @property
    def uri(self) -> str: ...

    @property
    def rows(self) -> int | None:
        """What the data set says; None: whatever the file says."""


class Feed:
    """One data set, as one rank reads it.

    Args:
        files: Of the data set, in the manifest's order.
    Raises:
        DataError: A file is missing or corrupt, or has no row that it should have.
        SpecError: A file has not these columns.
    """

    def __init__(
        self, files: Iterable[File], columns: Columns = PACKED, *, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.groups: tuple[RowGroup, ...] = ()
        self.columns = columns
        self.layout = Layout(0, np.dtype(np.int32))
        for file in files:
            self._add(file)
        self._read = RowGroups(columns, self.layout, cache_bytes=cache_bytes)
        self._whole_rows = _whole_rows(self.rows, self.layout, cache_bytes)

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.groups)

    @property
    def width(self) -> int:
        return self.layout.width

    @property
    def has_classes(self) -> bool:
        """Labels are classes, not values."""
        return self.layout.label_type == np.int32

    def chunks(
        self, batching: Batching, *, rank: int, seed: int, epoch: int, shuffle: bool
    ) -> Iterator[Rows]:
        """This rank's share of the global batches of one epoch, several steps at once.

        Yields:
            features (steps, share, width), labels (steps, share), `batching.steps` steps over all.
        Raises:
            DataError: A file is corrupt, or a label is not a class.
        """
        lanes = plan_epoch(
            self.groups,
            batching,
            rank=rank,
            seed=seed,
            epoch=epoch,
            shuffle=shuffle,
            whole_rows=self._whole_rows,
        )
        for lane in lanes:  # what each begins with comes before what any of them needs next
            if self._is_kept(lane.ranges[0], in_order=not shuffle):
                self._read.expect(lane.ranges[0].group)
        streams = [Stream(self._lane(lane)) for lane in lanes]
        most = max(1, CHUNK_BYTES // (batching.share * self.layout.row_bytes))
        for first in range(0, batching.steps, most):
            steps = min(most, batching.steps - first)
            rows = side_by_side([stream.take(steps * batching.lane_rows) for stream in streams], steps)
            if self.has_classes and rows.labels.min() < 0:
                raise DataError(
                    "a row to train on has a label that is not a class",
                    wanted="classes from 0",
                    got=int(rows.labels.min()),
                    hint="values to regress on are stored as floats",
                )
            yield rows

    def batches(
        self, batching: Batching, *, rank: int, seed: int, epoch: int, shuffle: bool
    ) -> Iterator[Rows]:
        """As `chunks`, one step at a time: features (share, width), labels (share,)."""
        for rows in self.chunks(batching, rank=rank, seed=seed, epoch=epoch, shuffle=shuffle):
            for step in range(len(rows.labels)):
                weights = None if rows.weights is None else rows.weights[step]
                yield Rows(rows.features[step], rows.labels[step], weights)

    def span(self, *, rank: int, world_size: int, batch_rows: int = EVALUATION_ROWS) -> Iterator[Rows]:
        """This rank's part of all rows, each exactly once over all ranks, in the manifest's order."""
        ranges = plan_span(self.groups, rank=rank, world_size=world_size)
        for chosen in self._ranges(ranges, in_order=True):
            rows = copied([chosen])
            for start in range(0, len(rows.labels), batch_rows):
                yield rows.part(slice(start, start + batch_rows))

    def _add(self, file: File) -> None:
        parquet = opened(file.uri)
        try:
            layout = layout_of(parquet.schema_arrow, self.columns, file.uri)
            metadata = parquet.metadata
            groups = [
                RowGroup(file.uri, i, metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups)
            ]
        finally:
            parquet.close()
        rows = sum(group.rows for group in groups)
        if file.rows is not None and rows != file.rows:
            raise DataError(
                f"{file.uri} is not what its manifest says", wanted=f"{file.rows} rows", got=f"{rows} rows"
            )
        if self.groups and self.layout != layout:
            raise DataError(
                f"{file.uri} has other columns than the files before it", wanted=self.layout, got=layout
            )
        self.layout = layout
        self.groups += tuple(group for group in groups if group.rows)

    def _lane(self, lane: Lane) -> Iterator[Chosen]:
        pieces = self._ranges(lane.ranges, in_order=lane.seed is None)
        return pieces if lane.seed is None else mixed(pieces, lane.seed)

    def _ranges(self, ranges: Sequence[Range], *, in_order: bool) -> Iterator[Chosen]:
        for kept, run in groupby(ranges, partial(self._is_kept, in_order=in_order)):
            parts = list(run)
            yield from self._kept(parts) if kept else map(Chosen.all_of, self._read.pieces(parts))

    def _kept(self, ranges: Sequence[Range]) -> Iterator[Chosen]:
        known, ahead = 0, 0
        for number, part in enumerate(ranges):
            rows = self._read.rows(part.group)
            while known < len(ranges) and (known <= number + 1 or ahead < AHEAD_ROWS):
                if known > number:
                    self._read.expect(ranges[known].group)
                ahead, known = ahead + ranges[known].rows, known + 1
            ahead -= part.rows
            yield Chosen(rows, slice(part.offset, part.offset + part.rows))

    def _is_kept(self, part: Range, *, in_order: bool) -> bool:
        """Whether its row group is decoded as a whole, for the other ranges of it that will be asked for.

        One that is read once and in order need not be, but many columns are decoded faster at once.
        """
        if in_order and part.rows == part.group.rows and self.columns.features is None:
            return False
        return self._whole_rows is None or part.group.rows <= self._whole_rows


class TableFile(NamedTuple):
    """A Parquet file that no manifest knows."""

    uri: str
    rows: int | None = None


def open_feed(source: Dataset | str | PathLike[str], columns: Columns = PACKED) -> Feed:
    """The feed of a data set of the store, of a Parquet file, or of a folder of them.

    Raises:
        DataError: There is no file, or one is corrupt.
        SpecError: The columns are not there, or not numeric.
    """
    from ml_platform.specs.references import Dataset
    from ml_platform.store.manifest import dataset_files

    if isinstance(source, Dataset):
        return Feed(dataset_files(source), columns)
    return Feed(_table_files(source), columns)


def _table_files(source: str | PathLike[str]) -> list[TableFile]:
    from ml_platform.store.folders import open_folder, scheme_of

    text = str(source)
    uri = text.rstrip("/") if scheme_of(text) else Path(text).absolute().as_uri()
    if uri.endswith(".parquet"):
        return [TableFile(uri)]
    folder = open_folder(uri)
    try:
        names = sorted(name for name in folder.sizes() if name.endswith(".parquet") and name[0] not in "._")
    except OSError as error:
        raise DataError(f"{uri} cannot be listed", got=error) from error
    if not names:
        raise DataError(f"there is no Parquet file in {uri}", wanted="*.parquet in this very folder")
    return [TableFile(folder.file_uri(name)) for name in names]


def _whole_rows(rows: int, layout: Layout, cache_bytes: int) -> int | None:
    """Row groups with more rows are read piece by piece. None: the whole table fits into the cache."""
    if rows * layout.row_bytes <= cache_bytes:
        return None
    return cache_bytes // WHOLE_SHARE // layout.row_bytes
