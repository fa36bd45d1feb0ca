"""Which rank reads which rows in which epoch. Pure: no file is opened.

The rows of an epoch are dealt to a number of *lanes* that does not depend on the ranks (8, where ranks
and batch allow it). A global batch takes the same number of rows from each lane, and each rank owns a
run of neighbouring lanes. So global batches are the same rows for 1, 2, 4 and 8 ranks, all ranks take
equal steps, and moving to more ranks does not change the mathematics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ml_platform.errors import DataError, SpecError

LANES = 8
BLOCK_ROWS = 4096
"""Rows that stay together when ranges are dealt anew, at most."""
_BLOCKS = 256
"""Small tables are cut into about this many blocks, so that they mix as well."""
_WINDOW_ROWS = 65_536
"""Blocks are mixed among row groups of about this many rows, so that a row group is read about once."""


class RowGroup(NamedTuple):
    """A row group of a Parquet file."""

    uri: str
    number: int
    rows: int


class Range(NamedTuple):
    """Neighbouring rows of one row group."""

    group: RowGroup
    offset: int
    rows: int


@dataclass(frozen=True)
class Lane:
    """What one lane reads in one epoch, in order. `seed` orders rows within its buffer; None: as they are."""

    number: int
    ranges: tuple[Range, ...]
    seed: tuple[int, int, int] | None

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.ranges)


@dataclass(frozen=True)
class Batching:
    """How global batches are made. Equal on every rank.

    `rows` in the table; `steps` per epoch; `lanes` over all ranks; `lane_rows` of each lane per step.
    """

    rows: int
    batch_rows: int
    steps: int
    lanes: int
    world_size: int

    @property
    def lane_rows(self) -> int:
        return self.batch_rows // self.lanes

    @property
    def share(self) -> int:
        """Rows per step on each rank."""
        return self.batch_rows // self.world_size

    @property
    def dropped(self) -> int:
        """Rows per epoch that do not fill a global batch: others each epoch, when shuffled."""
        return self.rows - self.steps * self.batch_rows


def plan_batches(rows: int, *, batch_rows: int, world_size: int) -> Batching:
    """How `rows` rows are cut into global batches.

    Raises:
        SpecError: A global batch cannot be shared evenly.
        DataError: There are fewer rows than one global batch.
    """
    lanes = LANES if LANES % world_size == 0 else -(-LANES // world_size) * world_size
    if batch_rows % lanes:
        lanes = world_size
    if batch_rows % lanes:
        raise SpecError(
            f"a global batch of {batch_rows} rows cannot be shared evenly by {world_size} ranks",
            wanted=f"batch_rows that {world_size} divides",
            got=f"batch_rows={batch_rows}",
            hint=f"batch_rows={-(-batch_rows // world_size) * world_size}",
        )
    if rows < batch_rows:
        raise DataError(
            f"fewer rows than one global batch: {rows} < {batch_rows}",
            wanted=f"at least batch_rows={batch_rows} rows to train on",
            got=f"{rows} rows",
            hint="a smaller batch_rows, or more rows",
        )
    return Batching(rows, batch_rows, rows // batch_rows, lanes, world_size)


def plan_epoch(
    groups: Sequence[RowGroup],
    batching: Batching,
    *,
    rank: int,
    seed: int,
    epoch: int,
    shuffle: bool,
    whole_rows: int | None = None,
) -> list[Lane]:
    """The lanes of `rank` in `epoch`, in order.

    Without shuffle, lane k holds the k-th part of the table in the manifest's order. With it, ranges are
    dealt anew by (seed, epoch), from another first row each time. Row groups with more than `whole_rows`
    rows, which are read piece by piece, are then dealt as they are.
    """
    order = (
        _shuffled(groups, seed, epoch, whole_rows)
        if shuffle
        else [Range(group, 0, group.rows) for group in groups]
    )
    length = batching.steps * batching.lane_rows
    per_rank = batching.lanes // batching.world_size
    mine = range(rank * per_rank, (rank + 1) * per_rank)
    return [
        Lane(k, tuple(cut(order, k * length, length)), (seed, epoch, k) if shuffle else None) for k in mine
    ]


def plan_span(groups: Sequence[RowGroup], *, rank: int, world_size: int) -> list[Range]:
    """The rows of `rank` when each row is read exactly once, in the manifest's order."""
    rows = sum(group.rows for group in groups)
    start, end = rank * rows // world_size, (rank + 1) * rows // world_size
    return cut([Range(group, 0, group.rows) for group in groups], start, end - start)


def cut(ranges: Sequence[Range], start: int, rows: int) -> list[Range]:
    """`rows` rows of a sequence of ranges, from row `start` on.

    >>> group = RowGroup("file:///a", 0, 10)
    >>> [(part.offset, part.rows) for part in cut([Range(group, 0, 4), Range(group, 4, 6)], 3, 4)]
    [(3, 1), (4, 3)]
    """
    out, skip = [], start
    for part in ranges:
        if skip >= part.rows:
            skip -= part.rows
            continue
        taken = min(part.rows - skip, rows)
        if taken <= 0:
            break
        out.append(Range(part.group, part.offset + skip, taken))
        skip, rows = 0, rows - taken
    return out


def _shuffled(groups: Sequence[RowGroup], seed: int, epoch: int, whole_rows: int | None) -> list[Range]:
    random = np.random.default_rng([seed, epoch])
    rows = sum(group.rows for group in groups)
    block = min(max(rows // _BLOCKS, 1), BLOCK_ROWS)
    order: list[Range] = []
    window: list[Range] = []
    for number in random.permutation(len(groups)):
        group = groups[number]
        stays = whole_rows is not None and group.rows > whole_rows
        window.extend([Range(group, 0, group.rows)] if stays else _blocks(group, block))
        if sum(part.rows for part in window) >= _WINDOW_ROWS:
            order.extend(window[i] for i in random.permutation(len(window)))
            window = []
    order.extend(window[i] for i in random.permutation(len(window)))
    # The tail that fills no batch is dropped; another first row makes it another tail.
    first = int(random.integers(rows)) if rows else 0
    return [*cut(order, first, rows - first), *cut(order, 0, first)]


def _blocks(group: RowGroup, rows: int) -> list[Range]:
    return [Range(group, start, min(rows, group.rows - start)) for start in range(0, group.rows, rows)]
