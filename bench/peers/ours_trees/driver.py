"""Trains trees as the task `train_classifier` does, without what it logs."""

from __future__ import annotations

from functools import partial
from typing import Any

import exchange
from pyspark.sql import SparkSession

from ml_platform.resources.spark import open_session
from ml_platform.specs.placements import SparkPlacement
from ml_platform.specs.references import Dataset
from ml_platform.specs.training import XGBoostSpec
from ml_platform.specs.trees import TreeColumns
from ml_platform.store.datasets import write_dataset
from ml_platform.training.boosting import boost
from ml_platform.training.tree_rows import deal_rows

COLUMNS = TreeColumns(features=tuple(f"f{number}" for number in range(64)), validation="held_out")
SPEC = XGBoostSpec(trees=10, depth=6)

tables: list[Dataset] = []


def take(spark: SparkSession, source: str) -> dict[str, Any]:
    """A Parquet file as a data set."""
    tables.append(write_dataset(spark.read.parquet(source), name="bench", label="label"))
    return {"value": tables[-1].rows}


def train(spark: SparkSession, source: str) -> dict[str, Any]:
    """Train on the table; rows that were met, and the loss at the end."""
    rows = deal_rows(spark, tables[-1], COLUMNS, "classifier", SPEC.workers)
    trees = boost(spark, rows.frame, "classifier", SPEC, columns=rows.columns)
    loss = trees.history["validation-logloss"][-1]
    return {"value": rows.train_rows + rows.validation_rows, "loss": loss}


def answer(spark: SparkSession, what: str, source: str) -> dict[str, Any]:
    return {"ready": take, "ours": train}[what](spark, source)


if __name__ == "__main__":
    with open_session(SparkPlacement(master="local[2]", driver_memory_mib=2048)) as session:
        exchange.serve(partial(answer, session))
