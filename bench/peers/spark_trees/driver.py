"""Trains trees as XGBoost's page "Distributed XGBoost with PySpark" says; and in one process from an
iterator, as its page "Using XGBoost External Memory Version" makes one. In our own environment, which has
both. Pages: xgboost.readthedocs.io/en/stable/tutorials."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import exchange
import xgboost
from pyarrow import parquet
from pyspark.sql import SparkSession
from xgboost.spark import SparkXGBClassifier

NAMES = [f"f{number}" for number in range(64)]
ROUNDS = 10
BATCH_ROWS = 65_536
SETTINGS = {"max_depth": 6, "learning_rate": 0.15, "subsample": 0.9, "tree_method": "hist"}


def plain(source: str) -> dict[str, Any]:
    """On Spark, with one worker."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local[2]").config("spark.driver.memory", "2g")
    spark = builder.config("spark.ui.enabled", "false").getOrCreate()
    table = spark.read.parquet(source)
    columns = {"features_col": NAMES, "label_col": "label", "validation_indicator_col": "held_out"}
    trees = SparkXGBClassifier(
        **columns, **SETTINGS, num_workers=1, n_estimators=ROUNDS, random_state=7, early_stopping_rounds=20
    ).fit(table)
    losses = trees.training_summary.validation_objective_history["logloss"]
    rows = table.count()
    spark.stop()
    return {"value": rows, "loss": losses[-1]}


class _Part(xgboost.DataIter):
    """Rows to train on, or rows that are held out, a batch at a time."""

    def __init__(self, source: str, held_out: bool) -> None:
        super().__init__()
        self.source, self.held_out = source, held_out
        self.reset()

    def reset(self) -> None:
        self.batches: Iterator[Any] = parquet.ParquetFile(self.source).iter_batches(BATCH_ROWS)

    def next(self, input_data: Callable[..., None]) -> bool:
        batch = next(self.batches, None)
        if batch is None:
            return False
        frame = batch.to_pandas()
        frame = frame[frame.held_out == self.held_out]
        input_data(data=frame[NAMES], label=frame.label)
        return True


def alone(source: str) -> dict[str, Any]:
    train = xgboost.QuantileDMatrix(_Part(source, held_out=False))
    held_out = xgboost.QuantileDMatrix(_Part(source, held_out=True), ref=train)
    said: dict[str, Any] = {}
    settings = {**SETTINGS, "objective": "binary:logistic", "seed": 7}
    parts = [(held_out, "held_out")]
    xgboost.train(settings, train, ROUNDS, evals=parts, evals_result=said, verbose_eval=False)
    return {"value": train.num_row() + held_out.num_row(), "loss": said["held_out"]["logloss"][-1]}


def answer(what: str, source: str) -> dict[str, Any]:
    return {"ready": lambda _: {}, "plain": plain, "alone": alone}[what](source)


if __name__ == "__main__":
    exchange.serve(answer)
