"""Parts of the rows that a raw column tells apart: a model may be bad in one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.evaluation.metrics import metrics_of
from ml_platform.specs.references import Slice

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

PREFIX = "slice:"
"""Of the columns of an evaluation's lines that hold raw values to slice by."""

LEAST_ROWS = 30
"""Of fewer rows a slice says nothing."""

QUANTILES = (0.25, 0.5, 0.75)
FEW_NUMBERS = 8
MOST_VALUES = 20
CANNOT_TELL = "cannot tell"
MISSING, OTHERS = "(missing)", "(others)"


def slices_of(rows: pa.Table, classes: int, columns: Sequence[str]) -> tuple[Slice, ...]:
    """Every slice with its rows, and its metrics where 30 rows or more tell something.

    A text has a slice per value, the 20 most frequent ones, and one for the others. More than eight different
    numbers are cut at the quartiles of these rows.

    Args:
        rows: Lines of an evaluation, with a column `slice:NAME` for each of `columns`.
        classes: Classes that the model knows; 0: it predicts a number.
    """
    found = []
    for column in columns:
        values = rows.column(f"{PREFIX}{column}")
        for value, is_range, members in _cut(values):
            part = rows.filter(members)
            metrics = metrics_of(part, classes) if part.num_rows >= LEAST_ROWS else {}
            found.append(
                Slice(column=column, value=value, is_range=is_range, rows=part.num_rows, metrics=metrics)
            )
    return tuple(found)


def listed(names: Sequence[str]) -> tuple[str, ...]:
    """Names of columns that were given one by one, or with commas between them.

    >>> listed(["city,age", "plan"])
    ('city', 'age', 'plan')
    """
    return tuple(name.strip() for several in names for name in several.split(",") if name.strip())


def slice_table(slices: Sequence[Slice]) -> dict[str, list[object]]:
    """A line per slice, for pages: what it is, its rows, its metrics with intervals."""
    names = list(dict.fromkeys(name for each in slices for name in each.metrics))
    table: dict[str, list[object]] = {
        "slice": [str(each) for each in slices],
        "rows": [each.rows for each in slices],
    }
    for name in names:
        table[name] = [str(each.metrics[name]) if name in each.metrics else CANNOT_TELL for each in slices]
    return table


def _cut(values: pa.ChunkedArray) -> Iterator[tuple[str, bool, NDArray[np.bool_]]]:
    """Names of slices, whether they are ranges, and which rows are in them."""
    import pyarrow as pa

    missing = values.is_null().to_numpy()
    if pa.types.is_floating(values.type):
        numbers = values.to_numpy()
        missing = missing | np.isnan(numbers)
        yield from _numeric(numbers, ~missing)
    else:
        yield from _textual(np.array(values.to_pylist(), object), ~missing)
    if missing.any():
        yield MISSING, False, missing


def _numeric(
    numbers: NDArray[np.float64], there: NDArray[np.bool_]
) -> Iterator[tuple[str, bool, NDArray[np.bool_]]]:
    different = np.unique(numbers[there])
    if len(different) <= FEW_NUMBERS:
        for number in different:
            yield f"{number:g}", False, there & (numbers == number)
        return
    edges = np.unique(np.quantile(numbers[there], QUANTILES, method="lower"))
    place = np.searchsorted(edges, numbers, side="left")
    for at in range(len(edges) + 1):
        members = there & (place == at)
        if members.any():
            yield _named(edges, at), True, members


def _named(edges: NDArray[np.float64], at: int) -> str:
    if at == 0:
        return f"≤ {edges[0]:g}"
    return f"> {edges[-1]:g}" if at == len(edges) else f"{edges[at - 1]:g} to {edges[at]:g}"


def _textual(
    values: NDArray[np.object_], there: NDArray[np.bool_]
) -> Iterator[tuple[str, bool, NDArray[np.bool_]]]:
    names, codes, counts = np.unique(values[there].astype(str), return_inverse=True, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[:MOST_VALUES]
    of_row = np.full(len(values), -1)
    of_row[there] = codes
    for code in sorted(frequent):
        yield str(names[code]), False, of_row == code
    others = there & ~np.isin(of_row, frequent)
    if others.any():
        yield OTHERS, False, others
