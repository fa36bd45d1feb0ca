"""A label that is a number, from the fitted state to the gate: in its own unit wherever a person looks."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sk

from ml_platform.data import classes
from ml_platform.errors import DataError
from ml_platform.evaluation.gate import choose_challenger, decide
from ml_platform.evaluation.measure import measure, read_rows
from ml_platform.evaluation.metrics import metrics_of, row_errors
from ml_platform.evaluation.pictures import draw_all
from ml_platform.features.apply import encode_labels
from ml_platform.features.fit_target import fit_target
from ml_platform.inference.raw_model import PyfuncModel, load_raw_model
from ml_platform.inference.score import score_frame
from ml_platform.specs.references import Dataset, Evaluation
from ml_platform.specs.training import GateSpec
from ml_platform.store.parquet_files import open_parquet
from tests.inference.builders import diabetes, number_contract, number_model, number_state, reference
from tests.worker.tables import packed_dataset

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TRAIN, HOLDOUT = slice(0, 300), slice(300, 442)
SPEC = GateSpec(resamples=400)


def _rows(predicted: np.ndarray, labels: np.ndarray, failed: np.ndarray | None = None) -> pa.Table:
    failed = np.zeros(len(labels), bool) if failed is None else failed
    errors = row_errors(predicted, labels, failed, scale=2.0)
    return pa.table({"label": labels, "predicted": pa.array(predicted, mask=failed), **errors})


def test_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(100, 5, 400)
    predicted = labels + rng.normal(1, 2, 400)
    rows = _rows(predicted, labels)
    got = metrics_of(rows, 0)
    assert list(got) == ["rmse", "mae", "r2"]
    assert got["rmse"].value == pytest.approx(sk.root_mean_squared_error(labels, predicted))
    assert got["mae"].value == pytest.approx(sk.mean_absolute_error(labels, predicted))
    assert got["r2"].value == pytest.approx(sk.r2_score(labels, predicted))
    assert all(metric.low < metric.value < metric.high for metric in got.values())
    assert got == metrics_of(rows, 0)


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """95 % intervals of the RMSE of 100 normal errors with a true value of 2."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        labels = rng.normal(0, 5, 100)
        found = metrics_of(_rows(labels + rng.normal(0, 2, 100), labels), 0)["rmse"]
        held += found.low < 2 < found.high
    assert 88 <= held <= 99


def test_a_row_without_a_prediction_counts_as_far_off() -> None:
    """Dropped, a model would look better on rows that it cannot handle."""
    got = metrics_of(_rows(np.array([1.0, 0.0]), np.array([1.0, 2.0]), np.array([False, True])), 0)
    assert got["mae"].value == 10.0
    assert got["rmse"].value == pytest.approx(math.sqrt(200))


def test_equal_labels_have_no_r2() -> None:
    assert list(metrics_of(_rows(np.array([1.0, 2.0]), np.array([1.0, 1.0])), 0)) == ["rmse", "mae"]


def test_the_target_is_fitted_whatever_the_order_of_rows(tmp_path: Path) -> None:
    labels = np.random.default_rng(2).lognormal(12, 2, 999).astype(np.float32)
    features = np.zeros((999, 1), np.float32)
    fitted = fit_target(packed_dataset(tmp_path / "a", features, labels), "label")
    assert fitted == fit_target(packed_dataset(tmp_path / "b", features, labels[::-1], files=5), "label")
    assert fitted.center == pytest.approx(labels.mean(dtype=float))
    assert fitted.scale == pytest.approx(labels.std(dtype=float))
    with pytest.raises(DataError, match=r"cannot be learnt(.|\n)*3 to 3 in 9 rows"):
        fit_target(packed_dataset(tmp_path / "c", features[:9], np.full(9, 3, np.float32)), "label")


def test_the_target_is_that_of_exact_sums_in_two_readings_of_the_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for the mean, and one for the distances from it."""
    labels = np.random.default_rng(3).normal(1e6, 0.1, 5000).astype(np.float32)
    part = packed_dataset(tmp_path / "a", np.zeros((5000, 1), np.float32), labels)
    opened: list[str] = []

    def counting(uri: str) -> Any:
        opened.append(uri)
        return open_parquet(uri)

    monkeypatch.setattr(classes, "open_parquet", counting)
    fitted = fit_target(part, "label")
    assert sorted(Counter(opened).values()) == [2, 2]
    values = labels.astype(np.float64)
    mean = math.fsum((values / 5000).tolist())
    assert fitted.center == mean
    assert fitted.scale == math.sqrt(math.fsum((np.square(values - mean) / 5000).tolist()))


def test_labels_are_standardised_for_training() -> None:
    state = number_state(diabetes())
    encoded = encode_labels(diabetes().column("label"), state)
    assert encoded.dtype == np.float32
    assert (encoded.mean(), encoded.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    with pytest.raises(DataError, match="the label is no number"):
        encode_labels(pa.array(["a"]), state)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return number_model(tmp_path_factory.mktemp("numbers") / "model", diabetes()[TRAIN])


def test_a_raw_model_answers_in_the_label_s_own_unit(folder: Path) -> None:
    """MLflow's door: one column, a number a row."""
    answered = PyfuncModel(load_raw_model(folder)).predict(diabetes()[HOLDOUT].to_pandas())
    assert list(answered.columns) == ["prediction"]
    assert answered["prediction"].dtype == float
    error = answered["prediction"] - diabetes()[HOLDOUT].column("label").to_numpy()
    assert np.sqrt((error**2).mean()) < 65_000
    assert load_raw_model(folder).predict(diabetes().slice(0, 0)).shape == (0, 1)


@pytest.fixture(scope="module")
def holdout(spark: SparkSession) -> Dataset:
    from ml_platform.store.datasets import write_dataset

    return write_dataset(spark.createDataFrame(diabetes()[HOLDOUT]), name="numbers", label="label")


@pytest.fixture(scope="module")
def evaluation(spark: SparkSession, folder: Path, holdout: Dataset) -> Evaluation:
    model = reference(folder, number_contract(diabetes()), ())
    return measure(spark, folder, model, holdout, "holdout")


@pytest.mark.spark
def test_a_part_is_measured_row_by_row(evaluation: Evaluation, folder: Path) -> None:
    predicted = load_raw_model(folder).predict(diabetes()[HOLDOUT])[:, 0]
    labels = diabetes()[HOLDOUT].column("label").to_numpy()
    assert evaluation.metrics["rmse"].value == pytest.approx(sk.root_mean_squared_error(labels, predicted))
    rows = read_rows(evaluation)
    assert sorted(rows.column("label").to_pylist()) == sorted(labels.tolist())
    assert list(draw_all(rows, (), "t")) == ["residuals"]


@pytest.mark.spark
def test_spark_scores_the_same_numbers_and_bad_rows_have_none(spark: SparkSession, folder: Path) -> None:
    table = diabetes()[HOLDOUT]
    scored = score_frame(
        spark.createDataFrame(table), folder, number_contract(table).inputs(), keys=["label"]
    )
    assert scored.dtypes[:2] == [("label", "double"), ("prediction", "double")]
    assert scored.columns[2:] == ["error", "model_name", "model_version"]
    found = {row["label"]: row["prediction"] for row in scored.collect()}
    expected = dict(
        zip(table.column("label").to_pylist(), load_raw_model(folder).predict(table)[:, 0], strict=True)
    )
    assert set(found) == set(expected)


@pytest.mark.spark
def test_the_gate_compares_squared_errors_and_speaks_in_the_label_s_unit(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    """Against the mean of the training part, then against itself made better, and by another metric."""
    state = number_state(diabetes()[TRAIN])
    first = decide(evaluation, None, state, SPEC)
    assert (first.decision, first.metric) == ("promote", "rmse")
    labels = diabetes()[HOLDOUT].column("label").to_numpy()
    trivial = np.sqrt(np.square(labels - diabetes()[TRAIN].column("label").to_numpy().mean()).mean())
    assert first.gain is not None
    assert first.gain.value == pytest.approx(trivial - evaluation.metrics["rmse"].value)
    assert f"error is {first.gain.value:,.0f} lower than its {trivial:,.0f} (95% interval" in first.reason

    rows = read_rows(evaluation)
    halved = rows.set_column(
        rows.schema.get_field_index("squared_error"),
        "squared_error",
        [rows.column("squared_error").to_numpy() / 4],
    )
    pq.write_table(halved, tmp_path / "better.parquet")
    other = evaluation.model.model_copy(update={"uri": "models:/another"})
    better = evaluation.model_copy(
        update={"rows_uri": (tmp_path / "better.parquet").as_uri(), "model": other}
    )
    assert decide(better, evaluation, state, SPEC).decision == "promote"
    assert decide(evaluation, better, state, SPEC).decision == "reject"
    by_mae = SPEC.model_copy(update={"metric": "mae"})
    reason = decide(better, evaluation, state, by_mae).reason
    assert reason.startswith("Exactly as good as the champion: the mean absolute error is its ")


@pytest.mark.spark
def test_the_smallest_error_is_chosen_and_classes_are_not_compared(evaluation: Evaluation) -> None:
    validated = evaluation.model_copy(update={"part": "validation"})
    worse = {name: m.model_copy(update={"value": m.value + 1}) for name, m in validated.metrics.items()}
    assert choose_challenger([validated.model_copy(update={"metrics": worse}), validated]) is validated
    of_classes = evaluation.model.model_copy(update={"classes": ("a", "b")})
    verdict = decide(
        evaluation,
        evaluation.model_copy(update={"model": of_classes}),
        number_state(diabetes()),
        SPEC,
    )
    assert verdict.decision == "not comparable"
    assert verdict.reason == "The champion solves another problem: binary."
