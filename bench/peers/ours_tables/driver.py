"""Loads tables, and makes features of them, as the tasks of `flows.retrain` do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import exchange
from pyspark.sql import SparkSession

from ml_platform.data.load import load_table
from ml_platform.features.fit import fit_features
from ml_platform.features.write import apply_features
from ml_platform.resources.spark import open_session
from ml_platform.specs.placements import SparkPlacement
from ml_platform.specs.references import Dataset, Table
from ml_platform.specs.tables import FeatureSpec, FeatureState
from ml_platform.store.datasets import dataset_files, remove_dataset, write_dataset

SPEC = FeatureSpec(log="never", missing_flag=False)
"""What the Pipeline does: fill with the median, subtract the mean, divide by the deviation, one-hot."""
written: list[Dataset] = []
"""What the last question left; it is looked at from outside."""


def load(spark: SparkSession, source: str) -> dict[str, Any]:
    """A source that nobody has seen: its types, its profile and its digests are all found out."""
    _clear()
    for file in Path(source).iterdir():
        os.utime(file)
    seconds, larger, table = exchange.grown(lambda: load_table(spark, source, "label"))
    assert isinstance(table, Table)
    written.append(table.data)
    seen = table.profile is not None and table.profile.rows
    files = [file.uri for file in dataset_files(table.data)]
    return {"seconds": seconds, "grown": larger, "value": seen, "files": files}


def take(spark: SparkSession, source: str) -> dict[str, Any]:
    """A Parquet file as a data set, to fit features on."""
    _clear()
    table = write_dataset(spark.read.parquet(source), name="bench", label="label")
    tables.append(table)
    return {"value": table.rows}


def fit(spark: SparkSession) -> dict[str, Any]:
    """Learn from the table, and write the features of all rows."""
    _clear()
    train = tables[-1]

    def work() -> FeatureState:
        state = fit_features(spark, train, SPEC)
        written.append(apply_features(spark, train, state))
        return state

    seconds, larger, state = exchange.grown(work)
    numbers = [[each.fill, each.center, each.scale] for each in state.numeric]
    learnt = {"numbers": numbers, "values": [sorted(each.values) for each in state.categories]}
    said = {"seconds": seconds, "grown": larger, "peak": exchange.peak(), "value": written[-1].rows}
    return {**said, **learnt}


def _clear() -> None:
    while written:
        remove_dataset(written.pop())


tables: list[Dataset] = []
ANSWERS = {"load": load, "take": take, "fit": fit}

if __name__ == "__main__":
    with open_session(SparkPlacement(master="local[2]", driver_memory_mib=4096)) as session:
        exchange.serve(lambda what, **question: ANSWERS[what](session, **question))
