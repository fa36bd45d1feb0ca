"""Exact counts that fitted statistics are derived from: they add up, so files and partitions do not matter.

A numeric value counts in the bin of the top 18 bits of its float32 form (sign, exponent, 9 bits of the
mantissa); a bin stands for its edge nearer to zero, so that whole numbers up to 1,024 are exact. What is
binned is the distance from the column's smallest value, which keeps years, times and account numbers apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_platform.features.hashing import buckets_of
from ml_platform.features.labels import label_names
from ml_platform.features.times import PARTS, part_values
from ml_platform.features.values import category_values, numeric_values, time_values
from ml_platform.specs.tables import TimePart

SHIFT_BITS = 14
BINS = 1 << 18
COMPACT_ROWS = 1 << 16
HASHES = 4096
FLOAT32_MAX = float(np.finfo(np.float32).max)
PART_BASE = 10_000
"""Parts of times share one counter: bins from 10,000 × the number of the part in `PARTS`."""

COUNTS = pa.schema(
    {"column": pa.int32(), "bin": pa.int32(), "value": pa.string(), "count": pa.int64()},
)
"""One row per counter and distinct bin or value; both are null for missing values."""
COUNTS_DDL = "column int, bin int, value string, count bigint"


@dataclass(frozen=True)
class Counted:
    """What is counted of one column."""

    name: str
    what: Literal["numbers", "parts", "values", "hashes", "labels"]
    offset: float = 0.0
    """Of numbers: the smallest."""
    keep: int = 0
    """Of values and labels: how many of the most frequent ones are wanted."""


def bins(values: NDArray[np.float64], offset: float) -> NDArray[np.int32]:
    """Bin of each value's distance from `offset`. Shape (rows,); no NaN in, 0 ≤ bin < BINS out."""
    distance = np.clip(values - offset, -FLOAT32_MAX, FLOAT32_MAX).astype(np.float32)
    distance += np.float32(0)  # -0.0 becomes 0.0
    keys: NDArray[np.int32] = (distance.view(np.uint32) >> SHIFT_BITS).astype(np.int32)
    return keys


def bin_values(keys: NDArray[np.int64], offset: float) -> NDArray[np.float64]:
    """What bins stand for: the inverse of `bins`, rounded toward `offset`."""
    edges = (keys.astype(np.uint32) << np.uint32(SHIFT_BITS)).view(np.float32)
    return edges.astype(np.float64) + offset


class NumericCounts:
    """Rows per bin of one column, and rows without a number."""

    def __init__(self, name: str, offset: float) -> None:
        self._name = name
        self._offset = offset
        self._pending = [np.empty(0, np.int32)]
        self._rows = 0
        self._missing = 0
        self._keys = np.empty(0, np.int64)
        self._counts = np.empty(0, np.int64)

    def add(self, column: pa.Array) -> None:
        values = numeric_values(column, self._name)
        present = values[~np.isnan(values)]
        self._missing += len(values) - len(present)
        self._pending.append(bins(present, self._offset))
        self._rows += len(present)
        if self._rows >= COMPACT_ROWS:
            self._compact()

    def _compact(self) -> None:
        """Sparse between compactions: 2,000 columns of dense bins would take 4 GB."""
        dense = np.bincount(np.concatenate(self._pending), minlength=BINS)
        dense[self._keys] += self._counts
        self._keys = np.flatnonzero(dense)
        self._counts = dense[self._keys]
        self._pending, self._rows = [np.empty(0, np.int32)], 0

    def full(self) -> bool:
        return False

    def rows(self, at: int) -> pa.Table:
        self._compact()
        keys = pa.array(self._keys, pa.int32())
        counted = _rows(at, self._counts, bin_=keys)
        return pa.concat_tables([counted, _missing(at, self._missing)])


class PartCounts:
    """Rows per year, month, day, weekday and hour of one column. Missing moments are not counted."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts = np.zeros(len(PARTS) * PART_BASE, np.int64)

    def add(self, column: pa.Array) -> None:
        moments = time_values(column, self._name)
        present = moments[~np.isnat(moments)]
        for at, part in enumerate(PARTS):
            keys = at * PART_BASE + part_values(present, part)
            self._counts += np.bincount(keys, minlength=len(self._counts))

    def full(self) -> bool:
        return False

    def rows(self, at: int) -> pa.Table:
        keys = np.flatnonzero(self._counts)
        return _rows(at, self._counts[keys], bin_=pa.array(keys, pa.int32()))


def part_counts(counts: pa.Table, part: TimePart) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Values of one part, sorted, and rows of each, out of what `PartCounts` counted."""
    keys, rows = counts["bin"].to_numpy().astype(np.int64), counts["count"].to_numpy()
    of_part = keys // PART_BASE == PARTS.index(part)
    order = np.argsort(keys[of_part])
    return keys[of_part][order] % PART_BASE, rows[of_part][order]


class HashCounts:
    """Rows per hash of one column's texts: enough to see whether they differ."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts = np.zeros(HASHES, np.int64)
        self._missing = 0

    def add(self, column: pa.Array) -> None:
        values = category_values(column, self._name)
        self._missing += values.null_count
        self._counts += np.bincount(buckets_of(values.drop_null(), HASHES), minlength=HASHES)

    def full(self) -> bool:
        return False

    def rows(self, at: int) -> pa.Table:
        keys = np.flatnonzero(self._counts)
        counted = _rows(at, self._counts[keys], bin_=pa.array(keys, pa.int32()))
        return pa.concat_tables([counted, _missing(at, self._missing)])


class ValueCounts:
    """Rows per value of one column, and rows without a value."""

    def __init__(self, name: str, *, is_label: bool) -> None:
        self._name = name
        self._is_label = is_label
        self._pending: list[pa.Table] = []
        self._distinct = 0
        self._missing = 0

    def add(self, column: pa.Array) -> None:
        values = label_names(column) if self._is_label else category_values(column, self._name)
        self._missing += values.null_count
        counted = pc.value_counts(values.drop_null())
        self._pending.append(pa.table({"value": counted.field(0), "count": counted.field(1)}))
        self._distinct += len(counted)
        if self._distinct >= 4 * COMPACT_ROWS:
            self._compact()

    def _compact(self) -> None:
        if len(self._pending) > 1:
            whole = pa.concat_tables(self._pending).group_by("value").aggregate([("count", "sum")])
            self._pending = [whole.rename_columns(["value", "count"])]
            # What is distinct already does not count toward the next compaction.
            self._distinct = 0

    def full(self) -> bool:
        """Memory stays flat: a million values are handed on in pieces, which add up elsewhere."""
        return sum(len(table) for table in self._pending) >= 4 * COMPACT_ROWS

    def rows(self, at: int) -> pa.Table:
        self._compact()
        tables = [_rows(at, t["count"].to_numpy(), value=t["value"].combine_chunks()) for t in self._pending]
        counted = pa.concat_tables([*tables, _missing(at, self._missing)])
        self._pending, self._distinct, self._missing = [], 0, 0
        return counted


class Counter(Protocol):
    def add(self, column: pa.Array) -> None:
        """Count the rows of one batch."""

    def full(self) -> bool:
        """Whether what was counted should be handed on before it grows further."""

    def rows(self, at: int) -> pa.Table:
        """What was counted since the last call, as rows of `COUNTS` that bear the counter's number."""


def counter_of(counted: Counted) -> Counter:
    if counted.what == "numbers":
        return NumericCounts(counted.name, counted.offset)
    if counted.what == "parts":
        return PartCounts(counted.name)
    if counted.what == "hashes":
        return HashCounts(counted.name)
    return ValueCounts(counted.name, is_label=counted.what == "labels")


def count_batches(
    batches: Iterable[pa.RecordBatch], names: Sequence[str], wanted: Sequence[Counted]
) -> Iterator[pa.RecordBatch]:
    """Count one partition.

    Args:
        names: Columns by position, as they come.
        wanted: Counters; the position stands for the counter in what comes out.
    Returns:
        Rows of `COUNTS`.
    """
    counters = [(counter_of(each), names.index(each.name)) for each in wanted]
    for batch in batches:
        for number, (counter, at) in enumerate(counters):
            counter.add(batch.column(at))
            if counter.full():
                yield from counter.rows(number).to_batches()
    rest = [counter.rows(number) for number, (counter, _) in enumerate(counters)]
    if rest:
        yield from pa.concat_tables(rest).combine_chunks().to_batches()


def merged(counts: pa.Table) -> pa.Table:
    """Counts of all partitions added up, sorted by column, bin and value."""
    keys = ["column", "bin", "value"]
    total = counts.group_by(keys).aggregate([("count", "sum")])
    return total.rename_columns([*keys, "count"]).sort_by([(key, "ascending") for key in keys])


def _rows(
    at: int, counts: NDArray[np.int64], *, bin_: pa.Array | None = None, value: pa.Array | None = None
) -> pa.Table:
    size = len(counts)
    columns = [
        pa.array(np.full(size, at, np.int32)),
        pa.nulls(size, pa.int32()) if bin_ is None else bin_,
        pa.nulls(size, pa.string()) if value is None else value,
        pa.array(counts, pa.int64()),
    ]
    return pa.table(columns, schema=COUNTS)


def _missing(at: int, rows: int) -> pa.Table:
    return _rows(at, np.array([rows], np.int64))
