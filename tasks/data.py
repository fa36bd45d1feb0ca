"""Load a table, deal it into parts, turn rows into features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_platform import (
    Dataset,
    FeatureSpec,
    FeatureState,
    Parts,
    ReadingSpec,
    Spark,
    SplitSpec,
    Table,
    TableSchema,
    task,
)
from ml_platform.data import classes, load, split as cut
from ml_platform.data.schema_file import read_schema
from ml_platform.data.sources import check_columns, source_columns, source_identity, source_types
from ml_platform.errors import SpecError, nearest
from ml_platform.evaluation.slices import listed
from ml_platform.features import fit, write
from ml_platform.features.treatments import beside_split, check_names, check_treatments
from ml_platform.specs.problems import AskedProblem, Problem
from ml_platform.specs.references import Family

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def check_retrain(
    source: str,
    label: str,
    reading: ReadingSpec,
    schema_file: str | None,
    score: str | None,
    split: SplitSpec,
    features: FeatureSpec,
    slices: tuple[str, ...] = (),
    score_reading: ReadingSpec = ReadingSpec(),
    families: tuple[Family, ...] = ("keras",),
) -> None:
    """Refuse, before anything starts, columns that are asked for and are not there, and a run of nothing."""
    if not families:
        raise SpecError("nothing would be trained", wanted="one family at least", hint="--families xgboost")
    left_out = set(beside_split(features, split, label).drop).difference(split.key_columns)
    check_columns(source, label, reading, schema_file, score, score_reading, left_out)
    for name in listed(slices):
        if name not in (there := source_columns(source, reading)):
            raise SpecError(f"cannot slice by {name!r}: no such column", hint=nearest(name, there))
    if split.time or split.group or split.key_columns:
        cut.check_names(source_columns(source, reading), split)
    if features.drop or features.columns or features.interactions:
        check_names(source_columns(source, reading), label, features)
        check_treatments(source_types(source, reading, read_schema(schema_file)), features)


@task(preflight=load.check_source, probe=source_identity)
def load_table(
    source: str,
    label: str,
    schema: TableSchema | None = None,
    reading: ReadingSpec = ReadingSpec(),
    spark: SparkSession = Spark(),
) -> Table:
    """Read a labelled table into the store; rows that are bad or without a label go to quarantine."""
    return load.load_table(spark, source, label, schema, reading)


@task
def find_problem(table: Table, asked: AskedProblem) -> Problem:
    """Whether the label names classes or is a number: as asked, or by a rule that the report quotes."""
    label = table.data.contract.label or ""
    return classes.find_problem(table.data, label, table.source, asked)


@task
def split_table(table: Dataset, spec: SplitSpec, problem: Problem, spark: SparkSession = Spark()) -> Parts:
    """Deal the rows into train, validation and holdout, by their own key alone."""
    return cut.split_table(spark, table, spec, problem.kind)


@task
def fit_features(
    train: Dataset, spec: FeatureSpec, problem: Problem, spark: SparkSession = Spark()
) -> FeatureState:
    """Learn imputation, scaling and vocabularies, from the training part alone."""
    return fit.fit_features(spark, train, spec, problem.kind)


@task
def apply_features(part: Dataset, state: FeatureState, spark: SparkSession = Spark()) -> Dataset:
    """Raw rows to packed float32 features and class indices, or standardised numbers."""
    return write.apply_features(spark, part, state)
