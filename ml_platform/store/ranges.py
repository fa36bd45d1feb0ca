"""Smallest values of columns, from the statistics in the files' footers: no pass over the data.

They do not depend on how rows are spread over files, so fitted statistics may rest on them.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ml_platform.specs.references import Dataset
from ml_platform.store.manifest import dataset_files
from ml_platform.store.parquet_files import open_parquet

if TYPE_CHECKING:
    from pyarrow import parquet

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def smallest_values(dataset: Dataset, names: Sequence[str]) -> dict[str, float]:
    """The smallest value of each column: booleans 0 and 1, dates in days, timestamps in seconds since 1970.

    Returns:
        By name. 0.0 where it is unknown: a column without values, or whose smallest is -inf.
    """
    found: dict[str, list[float]] = {name: [] for name in names}
    for file in dataset_files(dataset):
        for group in _row_groups(file.uri):
            _add_group(found, group)
    return {name: _finite_minimum(values) for name, values in found.items()}


def _row_groups(uri: str) -> Iterable[parquet.RowGroupMetaData]:
    with open_parquet(uri) as opened:
        footer = opened.metadata
    return (footer.row_group(at) for at in range(footer.num_row_groups))


def _add_group(found: dict[str, list[float]], group: parquet.RowGroupMetaData) -> None:
    for at in range(group.num_columns):
        column = group.column(at)
        if column.path_in_schema not in found:
            continue
        statistics = column.statistics
        if statistics is not None and statistics.has_min_max:
            found[column.path_in_schema].append(_as_number(statistics.min))


def _as_number(value: object) -> float:
    """As `ml_platform.features.values.numeric_values` reads it."""
    if isinstance(value, dt.datetime):
        at = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        return (at - EPOCH).total_seconds()
    if isinstance(value, dt.date):
        return float((value - EPOCH.date()).days)
    return float(value)  # type: ignore[arg-type]


def _finite_minimum(values: list[float]) -> float:
    smallest = min(values, default=0.0)
    return smallest + 0.0 if math.isfinite(smallest) else 0.0
