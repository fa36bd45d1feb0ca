"""The profile of a table, found out while it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_platform.data.kinds import integer_kind, plain_kind, text_kind
from ml_platform.data.sketch import ColumnCounts, TableSketch, merged, present
from ml_platform.specs.contracts import ColumnKind, ColumnType
from ml_platform.specs.profiles import ColumnProfile, Frequent, Profile

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
BARS = 24
FREQUENT = 10


class TableSurveyor:
    """Profiles a table that is being written; `profile` and `sample` are there when it has been.

    Args:
        types: Of the columns, in order.
        declared: What a person has said that columns are.
        label: It is what is predicted, so it is never a text or an identifier.
    """

    def __init__(
        self, types: Mapping[str, ColumnType], declared: Mapping[str, ColumnKind], label: str | None
    ) -> None:
        self._types = types
        self._declared = declared
        self._label = label
        self.profile = Profile(rows=0, sampled=0, columns=())
        self.sample: pa.Table | None = None

    def sketch(self) -> TableSketch:
        return TableSketch()

    def kinds(self, sketches: Sequence[bytes]) -> dict[str, ColumnKind]:
        rows, counts, sample = merged(sketches)
        if sample is None:
            return {}
        kinds = {name: self._kind(name, column) for name, column in zip(self._types, counts, strict=True)}
        self.sample = sample.rename_columns(list(self._types))
        self.profile = Profile(
            rows=rows,
            sampled=sample.num_rows,
            columns=tuple(
                _column(name, kinds[name], column, rows, sample.column(at).combine_chunks())
                for at, (name, column) in enumerate(zip(self._types, counts, strict=True))
            ),
        )
        return kinds

    def _kind(self, name: str, counts: ColumnCounts) -> ColumnKind:
        if name in self._declared:
            return self._declared[name]
        found, values, distinct = self._types[name], counts.values, counts.distinct
        if name == self._label or values == 0:
            return plain_kind(found)
        if found == "string":
            words, letters = counts.words / values, counts.letters / values
            return text_kind(values=values, distinct=distinct, words=words, letters=letters)
        if found == "integer":
            return integer_kind(values=values, distinct=distinct, low=counts.low, high=counts.high)
        return plain_kind(found)


def _column(name: str, kind: ColumnKind, counts: ColumnCounts, rows: int, sample: pa.Array) -> ColumnProfile:
    known = present(sample)
    numbers = _numbers(known)
    return ColumnProfile(
        name=name,
        kind=kind,
        nulls=rows - counts.values,
        distinct=counts.distinct,
        low=_shown(counts.low),
        high=_shown(counts.high),
        quantiles=tuple(np.quantile(numbers, QUANTILES, method="nearest").tolist()) if len(numbers) else (),
        bars=_bars(numbers),
        frequent=_frequent(known),
    )


def _numbers(values: pa.Array) -> NDArray[np.float64]:
    """Finite ones, shape (n,); of dates and timestamps their seconds. Empty where there are none."""
    kind = values.type
    if pa.types.is_date(kind):
        values = pc.multiply(values.cast(pa.int32()).cast(pa.int64()), 86_400)
    elif pa.types.is_timestamp(kind):
        values = pc.divide(values.cast(pa.int64()).cast(pa.float64(), safe=False), 1e6)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return np.empty(0)
    numbers: NDArray[np.float64] = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return numbers[np.isfinite(numbers)]


def _bars(numbers: NDArray[np.float64]) -> tuple[float, ...]:
    if len(numbers) == 0:
        return ()
    low, high = np.quantile(numbers, (QUANTILES[0], QUANTILES[-1]), method="nearest")
    # Halved, so that the distance of two values near the end of the float64 range stays finite.
    if high / 2 - low / 2 <= 0:
        return (1.0,)
    place = (numbers / 2 - low / 2) / (high / 2 - low / 2)
    counts = np.bincount(np.clip(place * BARS, 0, BARS - 1).astype(int), minlength=BARS)
    return tuple((counts / len(numbers)).tolist())


def _frequent(values: pa.Array) -> tuple[Frequent, ...]:
    if len(values) == 0:
        return ()
    pairs = values.value_counts()
    rows = pairs.field(1).to_numpy()
    # No value with fewer rows than the tenth can be among the ten.
    least = np.sort(rows)[-FREQUENT:][0]
    often = np.flatnonzero(rows >= least)
    shown = [_shown(value) or "" for value in pairs.field(0).take(pa.array(often)).to_pylist()]
    counted = sorted(zip(shown, rows[often].tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return tuple(Frequent(value=value, share=count / len(values)) for value, count in counted[:FREQUENT])


def _shown(value: Any) -> str | None:
    """As a person reads it; equal values alike.

    >>> _shown(1.5), _shown(1e308), _shown(None), _shown(True), _shown(Decimal("1.980000"))
    ('1.5', '1e+308', None, 'true', '1.98')
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
