"""Score tables with a registered model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_platform import Dataset, Predictions, Spark, Version, task
from ml_platform.data.sources import open_source, source_identity
from ml_platform.inference.destination import check_destination
from ml_platform.inference.input_check import input_diff
from ml_platform.inference.score import score_table as score
from ml_platform.store.datasets import spark_frame
from ml_platform.store.location import home
from ml_platform.tracking import registry
from ml_platform.tracking.fetching import fetch

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@task(probe=registry.find)
def find_version(uri: str) -> Version:
    """The registered version behind an alias. Asked once per run: all rows get the same version."""
    return registry.find(uri)


def check_scoring(source: str | None, destination: str | None) -> None:
    """Before anything starts: is there a table to score, and can the result be written?"""
    if source is not None:
        open_source(source).check()
    if destination is not None:
        check_destination(destination)


def probe_scoring(source: str | None, destination: str | None) -> dict[str, object]:
    """What scoring sees besides its arguments: the content of the table, and where results go by default."""
    content = source_identity(source) if source is not None else None
    return {"source": content, "folder": destination or str(home() / "predictions")}


@task(preflight=check_scoring, probe=probe_scoring)
def score_table(
    version: Version | None,
    table: Dataset | None,
    source: str | None,
    keys: tuple[str, ...],
    destination: str | None,
    spark: SparkSession = Spark(),
) -> Predictions | None:
    """Predictions beside the key columns, as Parquet that appears whole or not at all.

    Args:
        version: The model. None, when no model has ever passed the gate, scores nothing. Neither does a
            champion that cannot read the run's own table.
        table: The rows, when they are in the store already.
        source: Else where to read them.
        keys: Columns to keep beside the predictions. Empty: all.
        destination: Folder to write. Empty: `predictions/<model>` beside the platform's other files.
    """
    if version is None or (source is None and table and not _reads(version, table)):
        return None
    frame = spark_frame(spark, table) if source is None and table else open_source(source).frame(spark)
    folder = destination or str(home() / "predictions" / version.name)
    return score(spark, fetch(version), version, frame, keys=keys or None, destination=folder)


def _reads(version: Version, table: Dataset) -> bool:
    """Whether a model can read the table that the run loaded. An older champion may not."""
    types = {column.name: column.type for column in table.contract.columns}
    return input_diff(version.model.contract, types, types) is None
