"""Score tables with a registered model."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from prefect.logging import get_run_logger

from ml_platform import Contract, Dataset, Predictions, ReadingSpec, Spark, Version, task
from ml_platform.data.sources import (
    open_source,
    plain_files,
    read_raw,
    source_columns,
    source_identity,
    source_types,
)
from ml_platform.errors import SpecError, nearest
from ml_platform.inference.any_model import Asking, check_asking, check_own, predict_table
from ml_platform.inference.destination import check_destination
from ml_platform.inference.flavours import recognise
from ml_platform.inference.input_check import check_input, input_diff
from ml_platform.inference.parts import file_parts
from ml_platform.inference.raw_model import other_format, read_manifest
from ml_platform.inference.saved_model_file import SIGNATURE
from ml_platform.inference.score import Output, kept, score_table as score
from ml_platform.specs.references import ModelFiles
from ml_platform.store.datasets import dataset_files, spark_frame
from ml_platform.store.folders import local_path
from ml_platform.store.location import home
from ml_platform.tracking import registry
from ml_platform.tracking.any_model import find_any, identity, local, ours
from ml_platform.tracking.fetching import fetch

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@task(probe=registry.find)
def find_version(uri: str) -> Version:
    """The registered version behind an alias. Asked once per run: all rows get the same version."""
    return registry.find(uri)


def check_batch(
    model: str,
    source: str,
    reading: ReadingSpec = ReadingSpec(),
    keys: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    signature: str = SIGNATURE,
    trust_pickle: bool = False,
) -> None:
    """Before anything starts: is there such a model, and does the table have the columns that it reads?

    And of types that serve, where its files say them; those of text are found out when it is opened. What a
    model of others reads is seen when it is opened, on an executor.
    """
    asking = Asking(columns=columns, signature=signature, trust_pickle=trust_pickle)
    there = source_columns(source, reading)
    for name in columns:
        if name not in there:
            raise SpecError(f"{source} has no column {name!r}", hint=nearest(name, there))
    kept(there, keys or None)
    version = ours(model)
    if version is not None:
        check_own(version.uri, asking)
        contract = version.model.contract
        # What is text to the model is written out where a file holds it as a number.
        texts = {column.name for column in contract.columns if column.type == "string"}
        types = {name: kind for name, kind in source_types(source, reading).items() if name not in texts}
        check_input(contract, there, types=types, model=version.uri)
    elif not model.startswith(("models:/", "runs:/")):
        check_asking(recognise(local(model), model), asking)


def check_scoring(
    source: str | None, destination: str | None, day: str | None, reading: ReadingSpec = ReadingSpec()
) -> None:
    """Before anything starts: is there a table to score, and can the result be written?"""
    if source is not None:
        open_source(source, reading).check()
    when = which_day(day)
    if destination is not None:
        check_destination(destination, when)


def probe_scoring(
    source: str | None, destination: str | None, reading: ReadingSpec = ReadingSpec()
) -> dict[str, object]:
    """What scoring sees besides its arguments: the content of the table, and where results go by default."""
    content = source_identity(source, reading) if source is not None else None
    return {"source": content, "folder": destination or str(home() / "predictions")}


def which_day(day: str | None) -> date | None:
    """The day that is meant. The clock is not asked: whoever starts a run says which day it is for.

    Raises:
        SpecError: It is no day.
    """
    try:
        return None if day is None else date.fromisoformat(day)
    except ValueError as error:
        raise SpecError(f"{day!r} is no day", wanted="a date, such as 2026-11-27") from error


@task(preflight=check_scoring, probe=probe_scoring)
def score_table(
    version: Version | None,
    table: Dataset | None,
    source: str | None,
    keys: tuple[str, ...],
    destination: str | None,
    day: str | None = None,
    reading: ReadingSpec = ReadingSpec(),
    spark: SparkSession = Spark(),
) -> Predictions | None:
    """Predictions beside the key columns, as Parquet that appears whole or not at all.

    Args:
        version: The model. None, when no model has ever passed the gate, scores nothing. Neither does a
            champion that cannot read the run's own table.
        table: The rows, when they are in the store already.
        source: Else where to read them.
        keys: Columns to keep beside the predictions. Empty: all.
        destination: Folder to write. Empty: `predictions/<model>` beside the platform's other files, with a
            day `predictions/<model>-by-day`.
        reading: How `source` is written, where its file does not say so itself.
        day: Add to the folder as the partition of this day. Empty: replace what the folder holds.
    """
    if version is None or (source is None and table and not _reads(version, table)):
        return None
    if source is None and table:
        frame, files, unread = spark_frame(spark, table), dataset_files(table), None
    else:
        contract = version.model.contract
        frame, unread = read_raw(spark, source, contract, reading)
        files = plain_files(source, contract, reading)
    when = which_day(day)
    return score(
        spark,
        fetch(version),
        version,
        frame,
        keys=keys or None,
        destination=destination or _own_folder(version.name, when),
        day=when,
        parts=file_parts(files),
        unread=unread,
        tell=get_run_logger().info,
    )


def _own_folder(name: str, day: date | None) -> str:
    """Days are kept apart from predictions without a day: no reader could tell them apart in one folder."""
    return str(home() / "predictions" / (name if day is None else f"{name}-by-day"))


def _reads(version: Version, table: Dataset) -> bool:
    """Whether a model can read the table that the run loaded. An older champion may not."""
    types = {column.name: column.type for column in table.contract.columns}
    return input_diff(version.model.contract, types, types) is None and not other_format(fetch(version))


@task(probe=identity)
def find_model(uri: str) -> ModelFiles:
    """Any model: registered by a run of this platform or by somebody else, or a file. Pinned for the run."""
    return find_any(uri)


@task(preflight=check_scoring, probe=probe_scoring)
def batch_predict(
    model: ModelFiles,
    source: str,
    keys: tuple[str, ...] = (),
    destination: str | None = None,
    day: str | None = None,
    reading: ReadingSpec = ReadingSpec(),
    columns: tuple[str, ...] = (),
    signature: str = SIGNATURE,
    trust_pickle: bool = False,
    spark: SparkSession = Spark(),
) -> Predictions:
    """Predictions of any model beside the key columns, as Parquet that appears whole or not at all.

    Written in parts: what a scoring finished before it was killed, or an earlier one has done with the same
    model, rows and code, is not scored again.

    Args:
        source, keys, day, reading: As `score_table`.
        destination: As there, but `predictions/<model>-batch`: a retrain and a scoring of every hour do not
            write over each other.
        columns: Columns that make the model's input, in its order, where it does not say so itself.
        signature: Of a SavedModel.
        trust_pickle: Whether a model may be opened that is a pickle or holds Python code: whoever wrote it
            decides what that runs.
    """
    contract = _contract(model)
    when = which_day(day)
    frame, unread = read_raw(spark, source, contract, reading)
    return predict_table(
        spark,
        model,
        frame,
        asking=Asking(columns=columns, signature=signature, trust_pickle=trust_pickle),
        keys=keys or None,
        output=Output(destination or _own_folder(f"{model.name}-batch", when), when, get_run_logger().info),
        parts=file_parts(plain_files(source, contract, reading)),
        unread=unread,
    )


def _contract(model: ModelFiles) -> Contract:
    """What is known of a model's input before it is opened."""
    if model.flavour == "raw":
        return read_manifest(local_path(model.path)).contract
    return Contract(columns=())
