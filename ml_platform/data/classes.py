"""What a label asks for: classes or numbers, found by a rule or given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.data.text_types import MISSING
from ml_platform.errors import DataError
from ml_platform.features.labels import has_fractions, label_names, label_values, name_counts, natural_order
from ml_platform.specs.problems import AskedProblem, Problem, ProblemKind
from ml_platform.specs.references import Dataset
from ml_platform.store.manifest import dataset_files
from ml_platform.store.parquet_files import open_parquet

if TYPE_CHECKING:
    import pyarrow as pa

MOST_CLASSES = 1_000
MANY_NUMBERS = 50
ROWS_PER_NUMBER = 5
"""More than 50 numbers with fewer than 5 rows each on average are a quantity, not classes."""

MOST_NAMED = 10
"""As many classes are named in the report: one that nobody meant, such as a misspelt one, is seen there."""

NUMBERS = {"integer", "float", "decimal"}


def class_counts(dataset: Dataset, label: str) -> Counter[str]:
    """Rows of each class. Only the label's column is read, a row group at a time."""
    return name_counts(label_names(column) for column in label_columns(dataset, label))


def find_problem(dataset: Dataset, label: str, source: str, asked: AskedProblem = "auto") -> Problem:
    """What a label asks for; `asked` is taken at its word, if the label allows it.

    Text and booleans are classes. Numbers are a quantity (regression) when one has a fraction, when there are
    more than 1,000 different ones, or more than 50 with fewer than 5 rows each on average; else classes.

    Raises:
        DataError: The label has one value, too many classes, another number of classes than `asked`, or is no
            finite number although `asked` is regression.
    """
    seen = _look(label_columns(dataset, label))
    is_number = dataset.contract[label].type in NUMBERS
    kind, why = _found(seen, dataset.rows, is_number=is_number) if asked == "auto" else (asked, "as asked")
    if kind == "regression":
        _check_numbers(seen, dataset, label, source)
    else:
        _check_classes(seen, dataset, label, source, kind)
    if kind == "multiclass" and len(seen.counts) == 2:
        kind = "binary"
    if kind == "binary":
        why += f", {natural_order(seen.counts)[1]!r} is the positive one"
    words = [name for name in MISSING if name in seen.counts] if kind != "regression" else []
    if words:
        why += f" (does {words[0]!r} stand for no value? then leave its rows out of the table)"
    if asked != "auto":
        return Problem(kind=kind, reason=f"{label!r}, {why}.")
    others = "regression" if kind != "regression" else "multiclass"
    otherwise = f"; `--problem {others}` says otherwise" if is_number and kind != "binary" else ""
    return Problem(kind=kind, reason=f"{label!r} {why}{otherwise}.")


@dataclass
class _Seen:
    """A look at all values. Names are no longer counted once they are too many to be classes."""

    counts: Counter[str] = field(default_factory=Counter)
    fractions: bool = False
    infinite: int = 0
    smallest: float = np.inf
    largest: float = -np.inf

    @property
    def too_many(self) -> bool:
        return len(self.counts) > MOST_CLASSES


def _look(columns: Iterable[pa.Array]) -> _Seen:
    seen = _Seen()
    for column in columns:
        seen.fractions = seen.fractions or has_fractions(column)
        if not seen.too_many:
            seen.counts += name_counts([label_names(column)])
        try:
            values = label_values(column)
        except DataError:
            continue
        finite = values[np.isfinite(values)]
        seen.infinite += len(values) - len(finite)
        if len(finite):
            seen.smallest = min(seen.smallest, float(finite.min()))
            seen.largest = max(seen.largest, float(finite.max()))
    return seen


def _found(seen: _Seen, rows: int, *, is_number: bool) -> tuple[ProblemKind, str]:
    """The rule, and what it found, to stand behind the label's name."""
    different = len(seen.counts)
    if is_number and seen.fractions:
        return "regression", "has numbers with fractions"
    if is_number and seen.too_many:
        return "regression", f"has more than {MOST_CLASSES:,} different numbers"
    if is_number and different > MANY_NUMBERS and rows < ROWS_PER_NUMBER * different:
        return "regression", f"has {different} different numbers in {rows:,} rows"
    if is_number or not 2 < different <= MOST_NAMED:
        return ("binary" if different == 2 else "multiclass"), f"has {different} different values"
    return "multiclass", f"has {different} different values: {', '.join(natural_order(seen.counts))}"


def _check_numbers(seen: _Seen, dataset: Dataset, label: str, source: str) -> None:
    if dataset.contract[label].type not in NUMBERS:
        raise DataError(
            f"{source}: column {label!r} cannot be regressed on",
            wanted="numbers",
            got=f"values of type {dataset.contract[label].type}",
            hint="leave out `--problem regression`, or name another label",
        )
    if seen.infinite or not seen.smallest < seen.largest:
        spread = f"{seen.smallest:g} in all {dataset.rows} rows"
        raise DataError(
            f"{source}: column {label!r} has no numbers to learn",
            wanted="finite numbers that differ",
            got=f"{seen.infinite} infinite ones" if seen.infinite else spread,
        )


def _check_classes(seen: _Seen, dataset: Dataset, label: str, source: str, kind: ProblemKind) -> None:
    different = len(seen.counts)
    if seen.too_many:
        raise DataError(
            f"{source}: column {label!r} has too many values to be classes",
            wanted=f"at most {MOST_CLASSES:,} classes",
            got=f"more than {MOST_CLASSES:,}",
            hint="is it an identifier? a quantity is learnt by `--problem regression`",
        )
    if different < 2:
        raise DataError(
            f"{source}: column {label!r} has one class",
            wanted="at least 2 classes",
            got=f"{next(iter(seen.counts), 'no value')!r} in all {dataset.rows} rows",
        )
    if kind == "binary" and different > 2:
        shown = ", ".join(sorted(seen.counts)[:5])
        raise DataError(
            f"{source}: column {label!r} is not binary",
            wanted="2 classes",
            got=f"{different}: {shown}{', …' if different > 5 else ''}",
            hint="`--problem multiclass`, or name another label",
        )


def label_columns(dataset: Dataset, label: str) -> Iterator[pa.Array]:
    """The label's column, batch by batch."""
    for file in dataset_files(dataset):
        with open_parquet(file.uri) as opened:
            for batch in opened.iter_batches(columns=[label]):
                yield batch.column(0)
