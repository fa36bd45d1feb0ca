"""What a person should know of a table's columns: which are of no use, and which know too much."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_platform.data.sketch import present
from ml_platform.specs.profiles import ColumnProfile, Finding, Profile
from ml_platform.specs.tables import SplitSpec

FEWEST_ROWS = 50
"""Of fewer rows nobody can say that a column knows the label."""
MOST_GROUPS = 50
"""Values up to which a column's rows are grouped by value; beyond, numbers are looked at in their order."""
ROWS_PER_VALUE = 10
NEIGHBOURS = 3
"""Rows before, and after, that say what is usual at a number."""
ALMOST_ALL = 0.99
OF_ERRORS = 0.1
"""A column knows the label when it tells 99 % of rows, with at most a tenth of the errors that always naming
the commonest class makes."""
FAR = 50
"""Widths of the middle 98 % of a label, beyond which a value is far from the others."""
SHOWN = 5
WORDS = {
    "empty": "without a value, left out of the features",
    "constant": "with one value alone, left out of the features",
    "identifier": "identifying rows, left out of the features",
    "leak": "nearly telling the label alone (known when a prediction is wanted? if not: --features.drop)",
    "outliers": "to be predicted with values far from the others, and errors there outweigh all the rest "
    "(mend such values, or judge by --gate.metric mae)",
}


def find(profile: Profile, sample: pa.Table | None, label: str) -> tuple[Finding, ...]:
    """Findings in the order of the columns."""
    columns = [column for column in profile.columns if column.name != label]
    found = [finding for column in columns for finding in _of_no_use(column, profile.rows)]
    useless = {finding.column for finding in found}
    if sample is not None:
        used = [column.name for column in columns if column.name not in useless]
        found += [
            Finding(column=name, problem="leak", said=said) for name, said in _leaks(sample, used, label)
        ]
    found += [finding for column in profile.columns if column.name == label for finding in _outliers(column)]
    order = {column.name: at for at, column in enumerate(profile.columns)}
    return tuple(sorted(found, key=lambda finding: order[finding.column]))


def notes(findings: Sequence[Finding]) -> list[str]:
    """A line per problem, whatever the number of columns."""
    lines = []
    for problem, words in WORDS.items():
        some = [finding for finding in findings if finding.problem == problem]
        if some:
            shown = "; ".join(f"{finding.column!r} ({finding.said})" for finding in some[:SHOWN])
            more = f"; and {len(some) - SHOWN:,} more" if some[SHOWN:] else ""
            columns = f"{len(some):,} column{'s' if some[1:] else ''}"
            lines.append(f"{columns} {words}: {shown}{more}")
    return lines


def split_notes(findings: Sequence[Finding], split: SplitSpec, used: Collection[str]) -> list[str]:
    """What the dealing of rows means for columns: one that is no feature, or one that could place rows.

    Args:
        used: Columns that features are made of.
    """
    identifiers = [finding.column for finding in findings if finding.problem == "identifier"]
    name = split.apart
    if name is not None and name not in (*used, *identifiers):
        option = shlex.quote(f"--features.columns.{name}.treat")
        others = "validation and holdout have other values of it"
        return [f"{name!r} deals the rows, left out of the features: {others} ({option} says otherwise)"]
    if identifiers and not (split.key_columns or split.group or split.time):
        option = f"--split.key-columns {shlex.quote(identifiers[0])}"
        return [f"{option} keeps each row in its part when a cell of it is corrected or columns are added"]
    return []


def _of_no_use(column: ColumnProfile, rows: int) -> Iterator[Finding]:
    values = rows - column.nulls
    if values == 0:
        yield Finding(column=column.name, problem="empty", said=f"{rows:,} nulls")
    elif column.distinct == 1 and column.nulls == 0:
        said = f"{column.frequent[0].value!r} in all {rows:,} rows"
        yield Finding(column=column.name, problem="constant", said=said)
    elif column.kind == "identifier":
        about = "" if column.distinct < 1000 else "about "
        said = f"{about}{column.distinct:,} different of {values:,} values"
        yield Finding(column=column.name, problem="identifier", said=said)


def _outliers(label: ColumnProfile) -> Iterator[Finding]:
    if not label.quantiles or label.low is None or label.high is None:
        return
    (first, *_, last), low, high = label.quantiles, float(label.low), float(label.high)
    if last > first and max(first - low, high - last) > FAR * (last - first):
        said = f"98 of 100 are within {first:,.4g} … {last:,.4g}, all within {low:,.4g} … {high:,.4g}"
        yield Finding(column=label.name, problem="outliers", said=said)


def _leaks(sample: pa.Table, names: Sequence[str], label: str) -> Iterator[tuple[str, str]]:
    """Columns that know the label, and by how much."""
    labels = sample.column(label).combine_chunks()
    if len(labels) < FEWEST_ROWS:
        return
    classes, count = _codes(labels)
    if count > MOST_GROUPS and _is_number(labels):
        yield from _twins(sample, names, labels)
        return
    always = float(np.bincount(classes).max()) / len(classes)
    for name in names:
        told = _told(sample.column(name).combine_chunks(), classes, count)
        if told >= max(ALMOST_ALL, 1 - OF_ERRORS * (1 - always)):
            yield name, f"tells {told:.1%} of {len(classes):,} rows; the commonest class is {always:.1%}"


def _told(column: pa.Array, classes: NDArray[np.int64], count: int) -> float:
    """Share of rows whose class most others have: others of the same value, or of nearly the same number."""
    codes, values = _codes(column)
    if values <= MOST_GROUPS or (not _is_number(column) and values * ROWS_PER_VALUE <= len(column)):
        return _told_by_value(codes, values, classes, count)
    return _told_by_order(column, classes) if _is_number(column) else 0.0


def _told_by_value(codes: NDArray[np.int64], values: int, classes: NDArray[np.int64], count: int) -> float:
    table = np.bincount(codes * count + classes, minlength=values * count).reshape(values, count)
    top = np.sort(table, axis=1)
    first, second = top[:, -1], top[:, -2] if count > 1 else np.zeros(values, np.int64)
    return float(first[first - 1 > second].sum()) / len(classes)


def _told_by_order(column: pa.Array, classes: NDArray[np.int64]) -> float:
    """Rows with equal numbers lie in any order, not in that of the file: it may be sorted by the label."""
    ranks, missing = _ranks(column)
    shuffled = np.random.default_rng(0).permutation(len(classes))
    place = np.where(missing, 2.0, ranks)[shuffled]
    ordered = classes[shuffled][np.argsort(place, kind="stable")]
    around = np.pad(ordered, NEIGHBOURS, constant_values=-1)
    steps = [step for step in range(2 * NEIGHBOURS + 1) if step != NEIGHBOURS]
    alike = sum((around[step : step + len(ordered)] == ordered).astype(int) for step in steps)
    return float(np.mean(alike > NEIGHBOURS))


def _twins(sample: pa.Table, names: Sequence[str], labels: pa.Array) -> Iterator[tuple[str, str]]:
    """Numbers whose order is nearly that of a label that is a quantity."""
    wanted, no_label = _ranks(labels)
    for name in names:
        column = sample.column(name).combine_chunks()
        if not _is_number(column):
            continue
        ranks, missing = _ranks(column)
        both = ~(missing | no_label)
        if both.sum() < FEWEST_ROWS or np.ptp(ranks[both]) == 0 or np.ptp(wanted[both]) == 0:
            continue
        alike = float(np.corrcoef(ranks[both], wanted[both])[0, 1])
        if abs(alike) >= ALMOST_ALL:
            yield name, f"rank correlation {alike:.3f} over {both.sum():,} rows"


def _codes(column: pa.Array) -> tuple[NDArray[np.int64], int]:
    """A number for each different value, null among them."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    encoded = column.dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(encoded.dictionary)


def _is_number(column: pa.Array) -> bool:
    kind = column.type
    is_time = pa.types.is_date(kind) or pa.types.is_timestamp(kind)
    return bool(
        is_time or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _ranks(column: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Where each value lies among the others, in [0, 1); equal values alike. And which are missing."""
    missing = pc.is_null(column, nan_is_null=True).to_numpy(zero_copy_only=False)
    known = present(column)
    ranks = np.zeros(len(column))
    if len(known):
        order = pc.rank(known, tiebreaker="min").to_numpy().astype(np.float64) - 1
        ranks[~missing] = order / len(known)
    return ranks, missing
