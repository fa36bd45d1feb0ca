"""Metrics agree with scikit-learn's, and rows that cannot be right are counted, not dropped."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from ml_platform.errors import DataError
from ml_platform.evaluation.metrics import confusion_of, metrics_of, row_losses


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
    assert got["brier"].value == 2
    assert got["log_loss"].value == pytest.approx(34.5388, abs=1e-3)


def test_certain_and_wrong_is_finite() -> None:
    rows = _rows(np.array([1], np.int32), np.array([[1, 0]], np.float32))
    assert rows.column("log_loss").to_pylist() == pytest.approx([34.5388], abs=1e-3)
    assert rows.column("brier").to_pylist() == [2.0]


def test_no_rows_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="no rows"):
        metrics_of(_rows(np.empty(0, np.int32), np.empty((0, 2), np.float32)), 2)
