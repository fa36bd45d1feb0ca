"""Classes of a label: how many rows each has, and whether there is anything to classify."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ml_platform.errors import DataError
from ml_platform.features.labels import has_fractions, label_names, name_counts
from ml_platform.specs.references import Dataset
from ml_platform.store.manifest import dataset_files
from ml_platform.store.parquet_files import open_parquet

if TYPE_CHECKING:
    import pyarrow as pa

MOST_CLASSES = 1_000
MANY_NUMBERS = 50
ROWS_PER_NUMBER = 5
"""More than 50 numbers with fewer than 5 rows each on average are a quantity, not classes."""


def class_counts(dataset: Dataset, label: str) -> Counter[str]:
    """Rows of each class. Only the label's column is read, a row group at a time."""
    return name_counts(label_names(column) for column in _label_columns(dataset, label))


def check_classes(dataset: Dataset, label: str, source: str) -> None:
    """Refuse a label that does not name classes.

    Raises:
        DataError: One class, too many, or numbers that look like a quantity.
    """
    counts: Counter[str] = Counter()
    for column in _label_columns(dataset, label):
        if has_fractions(column):
            raise _regression(source, label, "values with fractions")
        counts += name_counts([label_names(column)])
        if len(counts) > MOST_CLASSES:
            raise DataError(
                f"{source}: column {label!r} has too many values to be classes",
                wanted=f"at most {MOST_CLASSES:,} classes",
                got=f"more than {len(counts) - 1:,}",
                hint="is it an identifier, or a quantity? this version classifies",
            )
    _check_counts(counts, dataset, label, source)


def _check_counts(counts: Counter[str], dataset: Dataset, label: str, source: str) -> None:
    if len(counts) < 2:
        raise DataError(
            f"{source}: column {label!r} has one class",
            wanted="at least 2 classes",
            got=f"{next(iter(counts), 'no value')!r} in all {dataset.rows} rows",
        )
    is_number = dataset.contract[label].type in {"integer", "float", "decimal"}
    if is_number and len(counts) > MANY_NUMBERS and dataset.rows < ROWS_PER_NUMBER * len(counts):
        raise _regression(source, label, f"{len(counts)} different numbers in {dataset.rows} rows")


def _regression(source: str, label: str, got: str) -> DataError:
    return DataError(
        f"{source}: column {label!r} looks like regression; this version classifies",
        wanted="class names or a few whole numbers",
        got=got,
        hint="cut it into classes, or name another label",
    )


def _label_columns(dataset: Dataset, label: str) -> Iterator[pa.Array]:
    for file in dataset_files(dataset):
        with open_parquet(file.uri) as opened:
            for batch in opened.iter_batches(columns=[label]):
                yield batch.column(0)
