"""Boosted trees on any table of numbers: a classifier, a regressor, a ranker, trained on Spark executors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform import (
    BoostedTrees,
    Dataset,
    RankingSpec,
    RegressionSpec,
    Spark,
    Tracking,
    TreeColumns,
    XGBoostSpec,
    task,
)
from ml_platform.evaluation.pictures import draw_learning_curves
from ml_platform.specs.tracking import TrackingRun
from ml_platform.specs.trees import TreeKind
from ml_platform.store.digests import file_digest
from ml_platform.store.leftovers import scratch_folder
from ml_platform.store.spark_failures import spark_failures
from ml_platform.training.boosting import Trees, boost
from ml_platform.training.tree_reports import log_importance
from ml_platform.training.tree_rows import DealtRows, deal_rows, feature_names

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@task
def train_classifier(
    table: Dataset,
    columns: TreeColumns,
    spec: XGBoostSpec = XGBoostSpec(),
    spark: SparkSession = Spark(),
    run: TrackingRun = Tracking(nested=True),
) -> BoostedTrees:
    """Trees that tell classes apart: labels 0, 1, …"""
    return _train("classifier", table, columns, spec, spark, run)


@task
def train_regressor(
    table: Dataset,
    columns: TreeColumns,
    spec: RegressionSpec = RegressionSpec(),
    spark: SparkSession = Spark(),
    run: TrackingRun = Tracking(nested=True),
) -> BoostedTrees:
    """Trees that predict a number."""
    return _train("regressor", table, columns, spec, spark, run)


@task
def train_ranker(
    table: Dataset,
    columns: TreeColumns,
    spec: RankingSpec = RankingSpec(),
    spark: SparkSession = Spark(),
    run: TrackingRun = Tracking(nested=True),
) -> BoostedTrees:
    """Trees that put the rows of each query in order: a higher label comes first."""
    return _train("ranker", table, columns, spec, spark, run)


def _train(
    kind: TreeKind,
    table: Dataset,
    columns: TreeColumns,
    spec: XGBoostSpec,
    spark: SparkSession,
    run: TrackingRun,
) -> BoostedTrees:
    run.log_params({"family": "xgboost", "kind": kind, "xgboost": spec, "columns": columns})
    run.log_input(table, context="training")
    with spark_failures("training trees failed on Spark"):
        rows = deal_rows(spark, table, columns, kind, spec.workers)
        trees = boost(
            spark,
            rows.frame,
            kind,
            spec,
            columns=rows.columns,
            on_metrics=lambda metrics, step: run.log_metrics(metrics, step=step),
        )
    return _kept(kind, trees, rows, feature_names(table, columns), run)


def _kept(
    kind: TreeKind, trees: Trees, rows: DealtRows, names: tuple[str, ...], run: TrackingRun
) -> BoostedTrees:
    run.log_metrics(
        {
            "best_round": trees.best_round,
            "rows.train": rows.train_rows,
            "rows.validation": rows.validation_rows,
        }
    )
    run.log_figure(
        draw_learning_curves(trees.history, f"XGBoost {kind}: learning curves", step="round"),
        "learning_curves.png",
    )
    log_importance(run, trees.importance, names, f"XGBoost {kind}: importance of features")
    with scratch_folder() as scratch:
        file = Path(scratch) / "booster.ubj"
        file.write_bytes(trees.model)
        return BoostedTrees(
            uri=run.log_file(file),
            kind=kind,
            run_id=run.run_id,
            digest=file_digest(file),
            features=names,
            best_round=trees.best_round,
            metrics={name: values[trees.best_round] for name, values in trees.history.items()},
            train_rows=rows.train_rows,
            validation_rows=rows.validation_rows,
        )
