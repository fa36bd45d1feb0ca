"""Which types columns of texts have, found by looking at all values, and texts as values of these types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.data.text_types import (
    ALLOWED,
    KINDS,
    MISSING,
    PATTERNS,
    QUARANTINE_LIMIT,
    kind_counts,
    narrowest,
    usual,
)
from ml_platform.errors import DataError
from ml_platform.store.sql import quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

ALLOWED_BITS = {kind: sum(1 << KINDS.index(each) for each in mixed) for kind, mixed in ALLOWED.items()}
"""`ALLOWED`, as bits in the order of `KINDS`."""
TEXT_BIT = 1 << len(PATTERNS)
LIMITED = {"bigint", "date", "timestamp"}
"""Types that lack some values which look like theirs: 9223372036854775808, 2024-02-30."""
EMPTY = "void"
"""Type of a column without a value, in a table that need not say what it is."""
SHOWN = 60
"""Letters of a bad value that its reason quotes, times three for a whole record."""


def infer(
    path: Path, texts: DataFrame, reason: str | None, as_text: Set[str]
) -> tuple[dict[str, str], list[str]]:
    """The narrowest type that every value of a column has, in one pass over all rows.

    Args:
        reason: The column of records with another number of fields. With it a column may have exceptions.
        as_text: Columns that are strings, whatever is in them.
    Returns:
        Types by column, and the columns with exceptions.
    Raises:
        DataError: As `counted`.
    """
    counts = counted(path, texts, reason, as_text).counts
    if reason is None:
        found = {name: narrowest(count) if count.any() else EMPTY for name, count in counts.items()}
        return dict.fromkeys(as_text, "string") | found, []
    return decided(list(counts), list(counts.values()), as_text)


@dataclass(frozen=True)
class Counted:
    """What a pass over all rows found."""

    counts: Mapping[str, NDArray[np.int64]]
    """How many values of a column are of which type. Shape (6,)."""
    rows: int
    bad: int
    """Records with another number of fields."""
    example: str | None
    """One of them."""


def counted(path: Path, texts: DataFrame, reason: str | None, as_text: Set[str]) -> Counted:
    """One pass over all rows.

    Raises:
        DataError: A bad record goes over several lines: nobody knows how many rows are in it.
    """
    from ml_platform.store.fingerprint import mapped

    names = [name for name in texts.columns if name != reason and name not in as_text]
    wanted = tuple(texts.columns.index(name) for name in names)
    counter = _KindCounter(wanted, None if reason is None else texts.columns.index(reason))
    seen = mapped(
        texts, counter, "counts binary, rows bigint, bad bigint, example string, swallowed string"
    ).collect()
    swallowed = [row.swallowed for row in seen if row.swallowed is not None]
    if swallowed:
        raise DataError(
            f"{path}: a record goes over several lines and has not the fields of the header",
            evidence=min(swallowed),
            hint="is a quote not closed there? in a quoted field a quote is written twice",
        )
    counts = np.zeros((len(names), len(KINDS)), np.int64)
    for row in seen:
        counts += np.frombuffer(row.counts, np.int64).reshape(counts.shape)
    return Counted(
        counts=dict(zip(names, counts, strict=True)),
        rows=sum(row.rows for row in seen),
        bad=sum(row.bad for row in seen),
        example=min((row.example for row in seen if row.example is not None), default=None),
    )


def but_a_few(count: NDArray[np.int64], serving: Sequence[str], rows: int) -> str | None:
    """The narrowest of these types that all values but a few have; None where it is more than a few rows."""
    fits = {kind: sum(int(count[KINDS.index(each)]) for each in ALLOWED[kind]) for kind in serving}
    most = max(fits.values())
    if int(count.sum()) - most > QUARANTINE_LIMIT * rows:
        return None
    return next(kind for kind in serving if fits[kind] == most)


def decided(
    names: Sequence[str], counts: Sequence[NDArray[np.int64]] | NDArray[np.int64], as_text: Set[str]
) -> tuple[dict[str, str], list[str]]:
    """Types by column, a few exceptions aside, and the columns that have some.

    Args:
        counts: Of each name. Shape (columns, 6).
    """
    of = dict(zip(names, counts, strict=True))
    found = {name: narrowest(count) for name, count in of.items()} | dict.fromkeys(as_text, "string")
    mostly = {name: usual(count) for name, count in of.items() if name not in as_text}
    mixed = [name for name in mostly if found[name] == "string" and mostly[name] != "string"]
    return found | {name: mostly[name] for name in mixed}, mixed


class _KindCounter:
    """What each Spark task runs: how many values of each column are of which type."""

    def __init__(self, columns: tuple[int, ...], record: int | None) -> None:
        self._columns = columns
        self._record = record

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.compute as pc

        counts = np.zeros((len(self._columns), len(KINDS)), np.int64)
        total = bad = 0
        examples: list[str] = []
        swallowed: list[str] = []
        for batch in batches:
            rows = batch
            total += batch.num_rows
            if self._record is not None:
                records = batch.column(self._record)
                bad += len(records) - records.null_count
                examples += pc.utf8_slice_codeunits(records.drop_null()[:1], 0, 3 * SHOWN).to_pylist()
                over = records.filter(pc.match_substring(records, "\n"))
                swallowed += pc.utf8_slice_codeunits(over, 0, 3 * SHOWN).to_pylist()[:1]
                rows = batch.filter(records.is_null()) if records.null_count < len(records) else batch
            for at, column in enumerate(self._columns):
                counts[at] += kind_counts(rows.column(column))
        said = [pa.array([min(found, default=None)], pa.string()) for found in (examples, swallowed)]
        numbers = [pa.array([total]), pa.array([bad])]
        yield pa.RecordBatch.from_arrays(
            [pa.array([counts.tobytes()], pa.binary()), *numbers, *said],
            ["counts", "rows", "bad", "example", "swallowed"],
        )


# As SQL text: a column of it costs one call into the JVM, and a table may have thousands of columns.


def _kind_bit(name: str) -> str:
    """The bit of a value's own narrowest type; null for a missing value."""
    cases = " ".join(f"WHEN {_is_of(name, kind)} THEN {1 << at}" for at, kind in enumerate(PATTERNS))
    return f"CASE WHEN {is_missing(name)} THEN NULL {cases} ELSE {TEXT_BIT} END"


def is_missing(name: str) -> str:
    value = quoted(name)
    return f"({value} IS NULL OR {value} IN ({', '.join(map(repr, MISSING))}))"


def _is_of(name: str, kind: str) -> str:
    """Whether a text is a value of this type."""
    value = quoted(name)
    fits = f"{value} RLIKE r'{PATTERNS[kind]}'"
    return f"({fits} AND TRY_CAST({value} AS {kind}) IS NOT NULL)" if kind in LIMITED else fits


def fits(name: str, kind: str) -> str:
    """Whether a text is a value of a type that a column of `kind` may mix."""
    return f"({_kind_bit(name)}) & {ALLOWED_BITS[kind]} > 0"


def typed(name: str, kind: str, *, is_mixed: bool = False) -> str:
    """A column of texts as values; null where a text is none, as those are that stand for no value."""
    value = quoted(name)
    if kind in ("string", EMPTY):
        return value if kind == "string" else f"NULL AS {value}"
    usable = f"CASE WHEN {fits(name, kind)} THEN {value} END" if is_mixed else value
    cast = f"TRY_CAST({usable} AS {kind})"
    # Of texts that stand for no value, NaN alone is a number, too.
    return f"{f'nanvl({cast}, NULL)' if kind == 'double' else cast} AS {value}"
