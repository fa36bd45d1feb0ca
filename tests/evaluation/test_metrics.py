"""Metrics agree with scikit-learn's, and rows that cannot be right are counted, not dropped."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from ml_platform.errors import DataError
from ml_platform.evaluation.metrics import (
    confusion_of,
    metrics_of,
    one_answer_notes,
    positive_scores,
    row_losses,
)
from ml_platform.evaluation.pictures import draw_all
from ml_platform.evaluation.ranking import Ranking
from ml_platform.specs.contracts import Contract
from ml_platform.specs.references import Evaluation, Model


def _rows(labels: np.ndarray, probabilities: np.ndarray, failed: np.ndarray | None = None) -> pa.Table:
    failed = np.zeros(len(labels), bool) if failed is None else failed
    losses = row_losses(probabilities, labels, failed)
    predicted = np.where(failed, -1, probabilities.argmax(axis=1))
    return pa.table({"label": pa.array(labels), "predicted": pa.array(predicted), **losses})


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 500).astype(np.int32)
    scores = rng.random((500, 4)) + 1.5 * np.eye(4)[labels] * rng.random((500, 1))
    return labels, (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def test_agrees_with_scikit_learn(sample: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = sample
    got = metrics_of(_rows(labels, probabilities), 4)
    predicted = probabilities.argmax(axis=1)
    exact = probabilities.astype(float)
    assert got["log_loss"].value == pytest.approx(
        sk.log_loss(labels, exact / exact.sum(1, keepdims=True)), abs=1e-6
    )
    assert got["accuracy"].value == pytest.approx(sk.accuracy_score(labels, predicted))
    assert got["balanced_accuracy"].value == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert got["macro_f1"].value == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert got["brier"].value == pytest.approx(((exact - np.eye(4)[labels]) ** 2).sum(axis=1).mean())


def test_every_interval_holds_its_value_and_repeats(sample: tuple[np.ndarray, np.ndarray]) -> None:
    rows = _rows(*sample)
    got = metrics_of(rows, 4)
    assert list(got) == ["log_loss", "brier", "accuracy", "balanced_accuracy", "macro_f1"]
    assert all(metric.low < metric.value < metric.high for metric in got.values())
    assert got == metrics_of(rows, 4)


def _binary(labels: np.ndarray, scores: np.ndarray, failed: np.ndarray | None = None) -> pa.Table:
    probabilities = np.stack([1 - scores, scores], 1).astype(np.float32)
    none = np.zeros(len(labels), bool) if failed is None else failed
    score = positive_scores(probabilities, labels, none)
    return _rows(labels, probabilities, failed).append_column("score", [score])


def test_ranking_agrees_with_scikit_learn_ties_included() -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random(400) < 0.2).astype(np.int32)
    scores = np.round(np.clip(rng.normal(0.3 + 0.3 * labels, 0.2), 0, 1), 1)
    got = metrics_of(_binary(labels, scores), 2)
    assert got["roc_auc"].value == pytest.approx(sk.roc_auc_score(labels, scores))
    assert got["average_precision"].value == pytest.approx(sk.average_precision_score(labels, scores))
    assert got["brier"].value == pytest.approx(sk.brier_score_loss(labels, scores), abs=1e-6)
    for name in ("roc_auc", "average_precision"):
        assert got[name].low < got[name].value < got[name].high
    curves = Ranking(scores, labels == 1).curves()
    false, true, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curves["false_positive_rate"], false)
    np.testing.assert_allclose(curves["recall"], true)


def test_one_class_has_no_ranking_and_the_rest_is_there() -> None:
    got = metrics_of(_binary(np.zeros(50, np.int32), np.linspace(0, 0.9, 50)), 2)
    assert {"roc_auc", "average_precision"}.isdisjoint(got)
    assert {"log_loss", "brier", "accuracy"} <= set(got)


def test_a_row_without_a_prediction_stands_at_the_wrong_end() -> None:
    labels = np.array([0, 1, 0, 1], np.int32)
    scores = np.array([0.1, 0.9, 0.2, 0.8])
    assert metrics_of(_binary(labels, scores), 2)["roc_auc"].value == 1
    failed = np.array([False, True, False, False])
    assert metrics_of(_binary(labels, scores, failed), 2)["roc_auc"].value == 0.5


def test_three_hundred_classes_are_measured() -> None:
    """Every class keeps its place, and the intervals of a matrix of 90,000 cells stay in bounded memory."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 300, 3_000).astype(np.int32)
    probabilities = rng.random((3_000, 300)).astype(np.float32)
    probabilities[np.arange(3_000), labels] += 0.5
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    rows = _rows(labels, probabilities)
    got = metrics_of(rows, 300)
    predicted = probabilities.argmax(axis=1)
    assert got["macro_f1"].value == pytest.approx(sk.f1_score(labels, predicted, average="macro"), abs=1e-9)
    assert got["balanced_accuracy"].low < got["balanced_accuracy"].value < got["balanced_accuracy"].high
    names = [f"class {number}" for number in range(300)]
    assert set(draw_all(rows.append_column("confidence", [probabilities.max(axis=1)]), names, "t"))


def test_a_class_that_the_model_does_not_know_costs_the_clipped_loss() -> None:
    """It is counted: dropped, a model would look better on data that it cannot handle."""
    rows = _rows(np.array([0, -1], np.int32), np.array([[1, 0], [1, 0]], np.float32))
    assert rows.column("log_loss").to_pylist() == pytest.approx([0, 34.5388], abs=1e-3)
    got = metrics_of(rows, 2)
    assert got["accuracy"].value == 0.5
    assert got["balanced_accuracy"].value == 0.5
    assert confusion_of(rows, 2).tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_a_row_without_a_prediction_is_wrong_and_costs_the_most() -> None:
    labels, probabilities = np.array([0, -1], np.int32), np.zeros((2, 2), np.float32)
    rows = _rows(labels, probabilities, np.array([True, True]))
    got = metrics_of(rows, 2)
    assert got["accuracy"].value == 0
    assert got["macro_f1"].value == 0
    assert got["brier"].value == 1
    assert got["log_loss"].value == pytest.approx(34.5388, abs=1e-3)


def test_certain_and_wrong_is_finite() -> None:
    rows = _rows(np.array([1], np.int32), np.array([[1, 0]], np.float32))
    assert rows.column("log_loss").to_pylist() == pytest.approx([34.5388], abs=1e-3)
    assert rows.column("brier").to_pylist() == [1.0]


def test_no_rows_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="no rows"):
        metrics_of(_rows(np.empty(0, np.int32), np.empty((0, 2), np.float32)), 2)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_model_of_one_answer_is_said_to_be_so(classes: int) -> None:
    """An accuracy of 99 % hides it, and so does a good order of the probabilities."""
    labels = np.where(np.arange(600) % 10, 0, np.arange(600) // 10 % classes).astype(np.int32)
    always, sometimes = np.full((600, classes), 0.1, np.float32), np.full((600, classes), 0.1, np.float32)
    always[:, 0], sometimes[1:, 0], sometimes[0, 1] = 0.9, 0.9, 0.9

    def said(probabilities: np.ndarray) -> list[str]:
        contract = Contract(columns=())
        names = tuple(f"c{at}" for at in range(classes))
        model = Model(uri="m", family="keras", run_id="r", digest="d", classes=names, contract=contract)
        measured = metrics_of(_rows(labels, probabilities), classes)
        return one_answer_notes(
            Evaluation(
                model=model,
                part="holdout",
                data_fingerprint="f",
                rows=600,
                metrics=measured,
                rows_uri="file:///r",
            )
        )

    assert ["the same class" in note for note in said(always)] == [True]
    assert said(sometimes) == []
