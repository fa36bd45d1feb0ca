"""Measuring on Spark: one line per row, the same every time, and what scikit-learn says of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, log_loss

from ml_platform.errors import DataError, StoreError
from ml_platform.evaluation.gate import decide
from ml_platform.evaluation.measure import gathered, measure, measured_rows, read_rows
from ml_platform.inference.raw_model import load_raw_model
from ml_platform.specs.references import Dataset, Evaluation, Model
from ml_platform.specs.training import GateSpec
from ml_platform.store.spark_files import BATCH_ROWS
from tests.inference.builders import (
    PEOPLE,
    PEOPLE_CONTRACT,
    PEOPLE_STATE,
    contract_of,
    digits,
    people_model,
    raw_model,
    reference,
    state_of,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark
TRAIN, HOLDOUT = slice(0, 1200), slice(1200, 1797)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw_model(tmp_path_factory.mktemp("digits") / "model", digits()[TRAIN], rounds=12)


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return reference(folder, contract_of(digits()), state_of(digits()).classes)


@pytest.fixture(scope="module")
def holdout(spark: SparkSession) -> Dataset:
    from ml_platform.store.datasets import write_dataset

    frame = spark.createDataFrame(digits()[HOLDOUT]).repartition(3)
    return write_dataset(frame, name="digits-holdout", label="label")


@pytest.fixture(scope="module")
def evaluation(spark: SparkSession, folder: Path, model: Model, holdout: Dataset) -> Evaluation:
    return measure(spark, folder, model, holdout, "holdout")


def test_metrics_are_those_of_the_predictions(evaluation: Evaluation, folder: Path, holdout: Dataset) -> None:
    table = digits()[HOLDOUT]
    probabilities = load_raw_model(folder).predict(table).astype(float)
    labels = table.column("label").to_pylist()
    classes = state_of(digits()).classes
    predicted = [classes[i] for i in probabilities.argmax(axis=1)]
    expected = log_loss(labels, probabilities / probabilities.sum(1, keepdims=True), labels=list(classes))
    assert evaluation.rows == 597
    assert evaluation.data_fingerprint == holdout.fingerprint
    assert evaluation.metrics["log_loss"].value == pytest.approx(expected, abs=1e-6)
    assert evaluation.metrics["accuracy"].value == pytest.approx(accuracy_score(labels, predicted))
    assert evaluation.metrics["accuracy"].value > 0.8


def test_lines_are_sorted_and_the_same_every_time(
    spark: SparkSession, evaluation: Evaluation, folder: Path, model: Model, holdout: Dataset
) -> None:
    """Pairing goes by position: the order must not depend on how Spark read the files.

    The lines go to a file of their own each time, so that an earlier evaluation stays what it was.
    """
    rows = read_rows(evaluation)
    keys = rows.column("row_key").to_numpy()
    assert rows.num_rows == 597
    assert (np.diff(keys) >= 0).all()
    again = measure(spark, folder, model, holdout, "holdout")
    assert again.rows_uri != evaluation.rows_uri
    assert again.model_copy(update={"rows_uri": evaluation.rows_uri}) == evaluation
    assert read_rows(again).equals(rows)


def test_two_models_are_paired_on_the_same_rows(
    spark: SparkSession, evaluation: Evaluation, holdout: Dataset, tmp_path: Path
) -> None:
    """A model of one round is worse on every way of looking: the better one is promoted over it."""
    worse = raw_model(tmp_path / "worse", digits()[TRAIN], rounds=1)
    champion = measure(
        spark, worse, reference(worse, contract_of(digits()), evaluation.model.classes), holdout, "holdout"
    )
    spec = GateSpec(resamples=400)
    assert decide(evaluation, champion, state_of(digits()[TRAIN]), spec).decision == "promote"
    assert decide(champion, evaluation, state_of(digits()[TRAIN]), spec).decision == "reject"
    assert decide(evaluation, None, state_of(digits()[TRAIN]), spec).decision == "promote"


def test_duplicates_are_kept_and_nulls_make_rows_differ(spark: SparkSession, tmp_path: Path) -> None:
    table = pa.concat_tables([PEOPLE, PEOPLE])
    rows = measured_rows(spark.createDataFrame(table), people_model(tmp_path / "model"))
    keys = rows.column("row_key").to_numpy()
    assert rows.num_rows == 12
    assert (keys[::2] == keys[1::2]).all()
    assert len(set(keys.tolist())) == 6


def test_an_unknown_class_and_a_bad_row_are_counted(spark: SparkSession, tmp_path: Path) -> None:
    table = pa.table(
        {"age": [30.0, 30.5, 40.0, 41.0], "city": ["Bonn"] * 4, "left": ["no", "no", "perhaps", None]}
    )
    rows = measured_rows(spark.createDataFrame(table), people_model(tmp_path / "model")).to_pylist()
    assert len(rows) == 4
    known = [row for row in rows if row["label"] == 0]
    unknown = [row for row in rows if row["label"] == -1]
    assert sorted(row["predicted"] == -1 for row in known) == [False, True]
    assert len(unknown) == 2
    assert all(row["log_loss"] == pytest.approx(34.5388, abs=1e-3) for row in unknown)


def test_strange_column_names_are_measured(spark: SparkSession, tmp_path: Path) -> None:
    table = PEOPLE.append_column("a.b `c`", [[1, 2, 3, 4, 5, 6]])
    assert measured_rows(spark.createDataFrame(table), people_model(tmp_path / "model")).num_rows == 6


def test_a_small_part_is_measured_by_one_worker_and_a_large_one_by_all(spark: SparkSession) -> None:
    frame = spark.range(100).repartition(3)
    found = [gathered(frame, rows).rdd.getNumPartitions() for rows in (100, 2 * BATCH_ROWS, 100 * BATCH_ROWS)]
    assert found == [1, 2, 3]


def test_a_part_without_its_label_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lack the label 'left'"):
        measured_rows(spark.createDataFrame(PEOPLE.drop_columns("left")), people_model(tmp_path / "model"))


def test_lines_that_were_changed_are_refused(evaluation: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        read_rows(evaluation.model_copy(update={"rows_uri": (tmp_path / "gone.parquet").as_uri()}))
    with pytest.raises(StoreError, match="changed"):
        read_rows(evaluation.model_copy(update={"rows": 3}))


def test_contracts_agree_with_the_builders() -> None:
    """The people table is what its contract says, or the tests above would prove little."""
    assert tuple(PEOPLE.column_names) == PEOPLE_CONTRACT.names
    assert PEOPLE_STATE.width == 5
