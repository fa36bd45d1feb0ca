"""What a Spark task counts of the rows that it writes, and how the counts of all tasks become one.

Per column exact counts and sums, and the smallest hashes of its values, which tell how many differ; per
task some rows, drawn evenly. All of it adds up: nothing depends on the number of columns but time.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

HASHES = 1024
SAMPLE_CELLS = 400_000
FEWEST_ROWS, MOST_ROWS = 200, 4_000
"""Rows that a task draws: so many that the sample has this many cells."""
SHOWN_LETTERS = 80
HASH_RANGE = 2.0**64

Hashes = NDArray[np.uint64]


@dataclass
class ColumnCounts:
    """One column in the rows seen so far."""

    values: int = 0
    letters: int = 0
    words: int = 0
    low: Any = None
    high: Any = None
    hashes: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))

    def add(self, column: pa.Array) -> None:
        known = present(column)
        if len(known) == 0:
            return
        self.values += len(known)
        if pa.types.is_string(known.type):
            counted = pc.value_counts(known)
            known, rows = counted.field(0), counted.field(1).to_numpy()
            self.letters += int(pc.utf8_length(known).to_numpy() @ rows)
            self.words += int((pc.count_substring(known, " ").to_numpy() + 1) @ rows)
        elif not pa.types.is_boolean(known.type):
            ends = pc.min_max(known).as_py()
            self._widen(ends["min"], ends["max"])
        # While few are known, most come again.
        self._keep(hashed(known.unique() if len(self.hashes) < HASHES else known))

    def merge(self, other: ColumnCounts) -> None:
        self.values += other.values
        self.letters += other.letters
        self.words += other.words
        if other.low is not None:
            self._widen(other.low, other.high)
        self._keep(other.hashes)

    @property
    def distinct(self) -> int:
        """How many values differ: exact while few do, else by how close together the smallest hashes lie."""
        if len(self.hashes) < HASHES:
            return len(self.hashes)
        return min(self.values, round((HASHES - 1) / (float(self.hashes[-1]) / HASH_RANGE)))

    def _widen(self, low: Any, high: Any) -> None:
        self.low = low if self.low is None else min(low, self.low)
        self.high = high if self.high is None else max(high, self.high)

    def _keep(self, hashes: Hashes) -> None:
        if len(self.hashes) == HASHES:
            hashes = hashes[hashes < self.hashes[-1]]
        if len(hashes):
            # A third of the time of `np.unique`, which fills a table of hashes first.
            ordered = np.sort(np.concatenate([self.hashes, hashes]))
            self.hashes = ordered[np.flatnonzero(np.diff(ordered, prepend=~ordered[0]))[:HASHES]]


class TableSketch:
    """What one task has seen."""

    def __init__(self) -> None:
        self.rows = 0
        self.columns: list[ColumnCounts] = []
        self._sample: list[pa.Table] = []
        self._lots: list[NDArray[np.float64]] = []
        self._limit = 1.0
        self._random: np.random.Generator | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        columns = [plain(column) for column in batch.columns]
        if not self.columns:
            self.columns = [ColumnCounts() for _ in columns]
        for counts, column in zip(self.columns, columns, strict=True):
            counts.add(column)
        self._draw(columns, batch.num_rows)
        self.rows += batch.num_rows

    def state(self) -> bytes:
        self._thin(1)
        return pickle.dumps((self.rows, self.columns, self._limit, self._lots, self._sample))

    def _draw(self, columns: list[pa.Array], rows: int) -> None:
        """Each row has a lot; those with the smallest are the sample."""
        if self._random is None:
            self._random = np.random.default_rng(_task_number())
        lots = self._random.random(rows)
        drawn = np.flatnonzero(lots < self._limit)
        self._lots.append(lots[drawn])
        taken = [column.take(pa.array(drawn)) for column in columns]
        self._sample.append(pa.table([shortened(c) for c in taken], names=list(map(str, range(len(taken))))))
        self._thin(2)

    def _thin(self, spare: int) -> None:
        """Keep the smallest lots when there are `spare` times as many as wanted."""
        most = int(np.clip(SAMPLE_CELLS // max(1, len(self.columns)), FEWEST_ROWS, MOST_ROWS))
        if sum(map(len, self._lots)) <= spare * most:
            return
        lots, sample = np.concatenate(self._lots), pa.concat_tables(self._sample)
        kept = np.sort(np.argpartition(lots, most)[:most])
        self._limit = float(lots[kept].max())
        self._lots, self._sample = [lots[kept]], [sample.take(pa.array(kept))]


def merged(states: Sequence[bytes]) -> tuple[int, list[ColumnCounts], pa.Table | None]:
    """Rows, counts of each column, and the sample. The states were pickled by this project's own tasks.

    Rows whose lot was below the limit of every task are an even sample of all rows.
    """
    parts = [pickle.loads(state) for state in states]
    if not parts:
        return 0, [], None
    columns = [ColumnCounts() for _ in parts[0][1]]
    for _, counts, *_ in parts:
        for mine, other in zip(columns, counts, strict=True):
            mine.merge(other)
    limit = min(part[2] for part in parts)
    drawn = [
        table.filter(pa.array(lots <= limit))
        for *_, all_lots, tables in parts
        for lots, table in zip(all_lots, tables, strict=True)
    ]
    return sum(part[0] for part in parts), columns, pa.concat_tables(drawn)


def plain(column: pa.Array) -> pa.Array:
    """Without dictionaries and large offsets; moments in UTC: no calendar east of it has the last of 9999."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column


def present(column: pa.Array) -> pa.Array:
    """The values that are there. NaN is none."""
    if pa.types.is_floating(column.type):
        is_nan = pc.is_nan(column)
        column = column.filter(pc.invert(is_nan)) if is_nan.true_count else column
    return column.drop_null() if column.null_count else column


def shortened(column: pa.Array) -> pa.Array:
    return pc.utf8_slice_codeunits(column, 0, SHOWN_LETTERS) if pa.types.is_string(column.type) else column


def hashed(values: pa.Array) -> Hashes:
    """64 even bits of each value; equal for equal values anywhere."""
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.string())
    if pa.types.is_string(values.type):
        from pandas.util import hash_array

        found: Hashes = hash_array(values.to_numpy(zero_copy_only=False), categorize=False)
        return found
    if pa.types.is_floating(values.type):
        bits = (values.cast(pa.float64()).to_numpy(zero_copy_only=False) + 0.0).view(np.uint64)
    elif pa.types.is_boolean(values.type):
        bits = values.cast(pa.int64()).to_numpy().view(np.uint64)
    else:
        whole = values if pa.types.is_integer(values.type) else _counted(values)
        bits = whole.cast(pa.int64()).to_numpy(zero_copy_only=False).view(np.uint64)
    return _mixed(bits)


def _counted(values: pa.Array) -> pa.Array:
    """Days or microseconds."""
    return values.cast(pa.int32()) if pa.types.is_date(values.type) else values.cast(pa.int64())


def _mixed(bits: NDArray[np.uint64]) -> Hashes:
    """Source: splitmix64, Steele, Lea and Flood 2014, doi:10.1145/2714064.2660195."""
    z = bits + np.uint64(0x9E3779B97F4A7C15)
    shifted = np.empty_like(z)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        z ^= np.right_shift(z, np.uint64(shift), out=shifted)
        z *= np.uint64(factor)
    return z


def _task_number() -> int:
    """Lots of two tasks must differ; those of one task are the same each time."""
    from pyspark import TaskContext

    context = TaskContext.get()
    return context.partitionId() if context is not None else 0
