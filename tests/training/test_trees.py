"""Boosted trees on Spark: as good as in one process, told about as they grow, and whole when they arrive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.errors import DataError
from ml_platform.resources.progress import Progress, listening
from ml_platform.specs.references import Dataset
from ml_platform.specs.training import XGBoostSpec
from ml_platform.training import boosting
from ml_platform.training.boosting import Trees
from ml_platform.training.trees import train_trees, unpacked
from ml_platform.tuning.pruning import AmongRivals
from tests.inference.builders import cancer, diabetes, digits, features_of, number_state, state_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SPEC = XGBoostSpec(trees=12, depth=3, rate=0.4, patience=3)


def test_packed_features_come_apart_as_they_went_in() -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    blobs = [row.tobytes() for row in values]
    for kind in (pa.binary(), pa.binary(12)):
        assert unpacked(pa.array(blobs, kind)).to_pylist() == values.tolist()
        assert unpacked(pa.array(blobs, kind).slice(1, 2)).to_pylist() == values[1:3].tolist()
        assert unpacked(pa.array([], kind)).to_pylist() == []


@pytest.fixture(scope="module")
def parts(spark: SparkSession) -> tuple[Dataset, Dataset]:
    table, state = digits(), state_of(digits())
    return _packed(spark, table[:1200], state), _packed(spark, table[1200:1500], state)


@pytest.fixture(scope="module")
def trained(spark: SparkSession, parts: tuple[Dataset, Dataset]) -> tuple[Trees, list, list]:
    heard: list[tuple[int, dict[str, float]]] = []
    reports: list[Progress] = []
    with listening(reports.append):
        result = train_trees(
            spark,
            *parts,
            state_of(digits()),
            SPEC,
            on_metrics=lambda metrics, step: heard.append((step, dict(metrics))),
        )
    return result, heard, reports


@pytest.mark.spark
def test_predicts_digits_that_it_has_not_seen(trained: tuple[Trees, list, list], tmp_path: Path) -> None:
    features, labels = features_of(digits()[1500:], state_of(digits()))
    assert (_predict(trained[0].model).argmax(axis=1) == labels).mean() > 0.85
    assert features.shape == (297, 64)


@pytest.mark.spark
def test_the_history_is_that_of_the_model(trained: tuple[Trees, list, list]) -> None:
    """The validation loss in the history is the loss of the trees up to that round."""
    result = trained[0]
    assert set(result.history) == {"train-mlogloss", "validation-mlogloss"}
    features, labels = features_of(digits()[1200:1500], state_of(digits()))
    probabilities = _predict(result.model, features)
    loss = -np.log(probabilities[np.arange(300), labels]).mean()
    assert result.history["validation-mlogloss"][result.best_round] == pytest.approx(loss, rel=1e-4)
    assert (
        min(result.history["validation-mlogloss"]) == result.history["validation-mlogloss"][result.best_round]
    )


@pytest.mark.spark
def test_every_round_is_heard_once_in_order(trained: tuple[Trees, list, list]) -> None:
    result, heard, reports = trained
    rounds = len(result.history["train-mlogloss"])
    assert [step for step, _ in heard] == list(range(rounds))
    for step, metrics in heard:
        assert metrics == {name: values[step] for name, values in result.history.items()}
    assert [report.message for report in reports] == [f"tree {i + 1}/12" for i in range(rounds)]
    assert reports[-1].total == 12


@pytest.mark.spark
def test_rounds_are_heard_while_the_training_runs(
    spark: SparkSession, parts: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the history at the end: whatever was heard came over the stream."""
    monkeypatch.setattr(boosting.StepDelivery, "fill", lambda self, history: None)
    heard: list[int] = []
    train_trees(spark, *parts, state_of(digits()), SPEC, on_metrics=lambda metrics, step: heard.append(step))
    assert heard == list(range(12))


@pytest.mark.spark
def test_a_driver_that_cannot_listen_loses_no_round(
    spark: SparkSession,
    parts: tuple[Dataset, Dataset],
    monkeypatch: pytest.MonkeyPatch,
    trained: tuple[Trees, list, list],
) -> None:
    """No stream, same training; and the same spec gives the same trees, bit for bit."""
    from ml_platform.resources.metric_stream import open_stream

    monkeypatch.setattr(boosting, "open_stream", lambda host, heard: open_stream("192.0.2.1", heard))
    heard: list[int] = []
    again = train_trees(
        spark, *parts, state_of(digits()), SPEC, on_metrics=lambda metrics, step: heard.append(step)
    )
    assert heard == list(range(12))
    assert again.model == trained[0].model


@pytest.mark.spark
def test_early_stopping_keeps_the_best_rounds_only(spark: SparkSession) -> None:
    """Whoever scores uses every tree of the file: those after the best must not be in it."""
    import xgboost

    table, state = cancer(), state_of(cancer())
    train, validation = _packed(spark, table[:400], state), _packed(spark, table[400:], state)
    spec = XGBoostSpec(trees=300, depth=4, rate=0.9, patience=4)
    result = train_trees(spark, train, validation, state, spec)
    rounds = result.history["validation-logloss"]
    assert set(result.history) == {"train-logloss", "validation-logloss"}
    assert len(rounds) == result.best_round + 1 + 4 < 300
    assert xgboost.Booster(model_file=bytearray(result.model)).num_boosted_rounds() == result.best_round + 1


@pytest.mark.spark
def test_a_rule_ends_the_training_on_every_worker(
    spark: SparkSession, parts: tuple[Dataset, Dataset]
) -> None:
    """Behind rivals of a search: it is asked on executors, with the losses up to then."""
    spec = SPEC.model_copy(update={"workers": 2})
    stop = AmongRivals(50.0, ((0.01,) * 12,) * 5, warmup=4)
    result = train_trees(spark, *parts, state_of(digits()), spec, stop=stop)
    assert len(result.history["validation-mlogloss"]) == 5


@pytest.mark.spark
def test_two_workers_train_one_model(spark: SparkSession, parts: tuple[Dataset, Dataset]) -> None:
    """Rows of both parts reach both workers, whatever the partitions; the trees are whole."""
    spec = SPEC.model_copy(update={"workers": 2})
    result = train_trees(spark, *parts, state_of(digits()), spec)
    _, labels = features_of(digits()[1500:], state_of(digits()))
    assert (_predict(result.model).argmax(axis=1) == labels).mean() > 0.85
    assert train_trees(spark, *parts, state_of(digits()), spec).model == result.model


@pytest.mark.spark
def test_a_class_without_rows_is_refused_by_name(spark: SparkSession, parts: tuple[Dataset, Dataset]) -> None:
    """XGBoost would shift every class after it."""
    state = state_of(digits())
    no_sevens = digits().filter(pa.compute.not_equal(digits().column("label"), "7"))
    with pytest.raises(DataError, match="class '7' has no row to train on") as caught:
        train_trees(spark, _packed(spark, no_sevens[:600], state), parts[1], state, SPEC)
    assert "wanted: rows of all 10 classes" in str(caught.value)


@pytest.mark.spark
def test_one_class_is_refused(spark: SparkSession, parts: tuple[Dataset, Dataset]) -> None:
    state = state_of(digits()).model_copy(update={"classes": ("0",), "class_counts": (1,)})
    with pytest.raises(DataError, match="two classes"):
        train_trees(spark, *parts, state, SPEC)


@pytest.mark.spark
def test_more_workers_than_rows_are_refused(spark: SparkSession, parts: tuple[Dataset, Dataset]) -> None:
    spec = SPEC.model_copy(update={"workers": 301})
    with pytest.raises(DataError, match="too few rows for the workers") as caught:
        train_trees(spark, *parts, state_of(digits()), spec)
    assert "got: train 1200, validation 300" in str(caught.value)


@pytest.mark.spark
def test_validation_rows_of_unknown_classes_are_left_out(
    spark: SparkSession, parts: tuple[Dataset, Dataset]
) -> None:
    """Label -1 would be one class more to XGBoost."""
    strange = digits()[1200:1500].set_column(64, "label", [["0"] * 299 + ["eleven"]])
    result = train_trees(
        spark, parts[0], _packed(spark, strange, state_of(digits())), state_of(digits()), SPEC
    )
    assert _predict(result.model).shape == (297, 10)


@pytest.mark.spark
def test_a_consumer_that_fails_fails_the_caller(spark: SparkSession, parts: tuple[Dataset, Dataset]) -> None:
    """The stream swallows it, the end does not: metrics that could not be logged are no success."""

    def refuse(metrics: Mapping[str, float], step: int) -> None:
        raise RuntimeError("the tracking server is away")

    with pytest.raises(RuntimeError, match="the tracking server is away"):
        train_trees(spark, *parts, state_of(digits()), SPEC, on_metrics=refuse)


@pytest.mark.long
@pytest.mark.spark
def test_balanced_classes_count_alike(spark: SparkSession) -> None:
    """One row in twenty is of the second class: weighted, trees see it more often. Validation is not."""
    rng = np.random.default_rng(0)
    labels = rng.random(800) < 0.05
    table = pa.table({"x": rng.normal(labels * 1.0, 1.0), "label": np.where(labels, "yes", "no").tolist()})
    state = state_of(table)
    assert state.balanced_weights == pytest.approx((800 / 2 / (~labels).sum(), 800 / 2 / labels.sum()))
    parts = _packed(spark, table[:500], state), _packed(spark, table[500:], state)
    features, _ = features_of(table[500:], state)
    means = {}
    for weight in ("none", "balanced"):
        spec = XGBoostSpec(trees=8, depth=2, class_weight=weight)
        result = train_trees(spark, *parts, state, spec)
        means[weight] = _predict(result.model, features).mean()
        last = np.asarray(result.history["validation-logloss"][result.best_round])
        predicted = np.clip(_predict(result.model, features), 1e-7, 1 - 1e-7)
        loss = -np.where(labels[500:], np.log(predicted), np.log(1 - predicted)).mean()
        assert last == pytest.approx(loss, rel=1e-3)
    assert means["none"] < 0.15 < 0.3 < means["balanced"]


@pytest.mark.long
@pytest.mark.spark
def test_three_hundred_classes_are_learnt(spark: SparkSession) -> None:
    """A probability for each of them, in the order of the state; by chance one row in 300 were right."""
    rng, kinds = np.random.default_rng(0), np.arange(1500) % 300
    table = pa.table({f"x{at}": kinds // 18**at % 18 + rng.normal(0, 0.1, 1500) for at in range(2)})
    table = table.append_column("label", pa.array([f"class {kind}" for kind in kinds]))
    state = state_of(table)
    parts = _packed(spark, table[:1200], state), _packed(spark, table[1200:], state)
    result = train_trees(spark, *parts, state, XGBoostSpec(trees=3, depth=4, rate=0.8))
    features, labels = features_of(table[1200:], state)
    predicted = _predict(result.model, features)
    assert predicted.shape == (300, 300)
    assert (predicted.argmax(axis=1) == labels).mean() > 0.1


@pytest.mark.spark
@pytest.mark.parametrize("workers", [1, 2])
def test_numbers_are_learnt(spark: SparkSession, workers: int) -> None:
    """By one worker and by two: standardised labels, squared error, below what the mean would give."""
    import xgboost

    table, state = diabetes(), number_state(diabetes())
    train, validation = _packed(spark, table[:300], state), _packed(spark, table[300:], state)
    spec = SPEC.model_copy(update={"workers": workers})
    result = train_trees(spark, train, validation, state, spec)
    assert set(result.history) == {"train-rmse", "validation-rmse"}
    features, labels = features_of(table[300:], state)
    predicted = xgboost.Booster(model_file=bytearray(result.model)).predict(xgboost.DMatrix(features))
    assert np.sqrt(np.square(predicted - labels).mean()) == pytest.approx(
        result.history["validation-rmse"][result.best_round], rel=1e-4
    )
    assert np.square(predicted - labels).mean() < 0.8 * labels.var()


def _packed(spark: SparkSession, table: pa.Table, state) -> Dataset:
    from ml_platform.store.datasets import write_dataset

    features, labels = features_of(table, state)
    rows = pa.table({"label": labels, "features": pa.array([row.tobytes() for row in features], pa.binary())})
    frame = spark.createDataFrame(rows).repartition(3)
    return write_dataset(frame, name="packed", packed={"features": state.width})


def _predict(model: bytes, features: np.ndarray | None = None) -> np.ndarray:
    import xgboost

    if features is None:
        features, _ = features_of(digits()[1500:], state_of(digits()))
    return xgboost.Booster(model_file=bytearray(model)).predict(xgboost.DMatrix(features))
