"""Keras 3 on two ranks: what a person compiles and passes, against one process on the joined batches."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ml_platform.errors import DivergedError
from ml_platform.resources.horovod.job import HorovodJob, RankResults
from ml_platform.specs.references import Dataset
from ml_platform.specs.training import KerasSpec
from ml_platform.tuning.pruning import AmongRivals
from tasks.loops import try_keras
from tests.gangs import ranks_of_this_process, warm_pair
from tests.worker import keras_cases
from tests.worker.tables import blobs, packed_dataset

pytestmark = pytest.mark.horovod

CASES = {
    "SGD": 2e-6,
    "Adam": 2e-6,
    "AdamW": 2e-6,
    "Adamax": 2e-6,
    "Adagrad": 2e-6,
    "Adadelta": 2e-6,
    "Adafactor": 2e-6,
    "Ftrl": 2e-6,
    "Lamb": 2e-6,
    "Lion": 2e-6,
    "Muon": 2e-6,
    "Nadam": 2e-6,
    "RMSprop": 2e-6,
    "ScheduleFreeAdamW": 2e-6,
    "LossScaleOptimizer": 2e-6,
    "MultiOptimizer": 2e-6,
    "clipnorm": 2e-6,
    "clipvalue": 2e-6,
    "global_clipnorm": 2e-6,
    "EMA": 2e-6,
    "EMA that overwrites": 2e-6,
    "accumulation": 2e-6,
    "accumulation and clipping": 2e-6,
    "schedule": 2e-6,
    "mixed_float16": 2e-3,
    "sparse SGD": 2e-6,
    "sparse Adam": 2e-6,
    "sparse LossScaleOptimizer": 2e-6,
    "sparse accumulation": 2e-6,
    "custom train_step": 2e-6,
    "steps_per_execution": 2e-6,
    "jit_compile": 2e-6,
    "eager": 2e-6,
    "class weights": 2e-6,
}
"""Largest difference of a weight, by case. Weights are about 1, steps about 0.01."""
FIRST = ("SGD", "Adam", "accumulation and clipping", "mixed_float16", "sparse Adam", "custom train_step")
"""One of each kind; the other cases are long."""
OTHERS = tuple(case for case in CASES if case not in FIRST)


@pytest.fixture(scope="module")
def pair() -> HorovodJob:
    return warm_pair()


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return packed_dataset(tmp_path_factory.mktemp("data") / "train", *blobs(500), files=3, group_rows=90)


@pytest.fixture(scope="module")
def compared(pair: HorovodJob, train: Dataset) -> Callable[[tuple[str, ...]], RankResults[Any]]:
    """All cases of a group in one job."""
    return functools.cache(lambda cases: pair.run(keras_cases.compare, train, list(cases)))


@pytest.mark.parametrize("case", [*FIRST, *(pytest.param(case, marks=pytest.mark.long) for case in OTHERS)])
def test_two_ranks_do_what_one_process_does(
    compared: Callable[[tuple[str, ...]], RankResults[Any]], case: str
) -> None:
    """Equal bytes on both ranks, and what one process gets that sees the joined batches."""
    (ours, by_first), (theirs, by_second) = (
        results[case] for results in compared(FIRST if case in FIRST else OTHERS)
    )
    alone = by_first or by_second
    assert alone is not None
    assert all(a.tobytes() == b.tobytes() for a, b in zip(ours.weights, theirs.weights, strict=True))
    for together, by_one in zip(ours.weights, alone.weights, strict=True):
        np.testing.assert_allclose(together, by_one, rtol=0, atol=CASES[case])
    assert ours.metrics == theirs.metrics
    if case != "custom train_step":  # what it logs is of the last batch
        np.testing.assert_allclose(ours.metrics["loss"], alone.metrics["loss"], rtol=max(CASES[case], 1e-5))
        assert ours.metrics["loss"][1] != ours.metrics["loss"][0], "weights move"


def test_no_optimizer_of_keras_is_left_out(pair: HorovodJob) -> None:
    keras, cases = pair.run(keras_cases.optimizer_names).rank0
    assert keras - cases == set()


def test_a_stop_on_one_rank_within_an_epoch_stops_both(pair: HorovodJob, train: Dataset) -> None:
    """At the same step: the next check. Nobody waits for a rank that has left."""
    options = {"check_every_steps": 3, "record_steps": True}
    histories = [
        history for history, _ in pair.run(keras_cases.fit_with, train, "stop_on_rank_1_within", options)
    ]
    assert [history.epochs for history in histories] == [1, 1]
    assert histories[0].metrics == histories[1].metrics
    steps = len(histories[0].metrics["step_loss"])
    assert 5 <= steps <= 15


def test_a_rank_that_drifts_is_found_on_the_way(pair: HorovodJob, train: Dataset) -> None:
    """Not only at the end: a check within the epoch names the variable."""
    for history, error in pair.run(keras_cases.fit_with, train, "disturb_rank_1", {"check_every_steps": 3}):
        assert history is None
        assert "dense/kernel: ranks 1 differ from rank 0" in error


def test_callbacks_see_global_values_and_decide_alike(
    pair: HorovodJob, train: Dataset, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """Rates fall and training stops at the same epoch on both ranks; files are written by rank 0 alone."""
    validation = packed_dataset(tmp_path_factory.mktemp("v") / "v", *blobs(101, seed=5))
    first, second = pair.run(keras_cases.decide_alike, train, validation, str(tmp_path))
    assert first == second
    assert first["epochs"] == 6
    assert len(set(first["rates"])) > 1
    assert set(first["seen"][0]) >= {"loss", "accuracy", "top2", "val_loss", "val_accuracy", "val_top2"}
    assert [seen["val_loss"] for seen in first["seen"]] == first["metrics"]["val_loss"]
    assert {path.name.partition("-")[2][0] for path in tmp_path.iterdir()} == {"0"}
    assert len(list(tmp_path.iterdir())) == 6


def test_moving_statistics_are_those_of_the_rows_of_both_ranks(pair: HorovodJob, tmp_path: Path) -> None:
    """Rows of rank 1 come last; they have another mean in one column, another variance in the next. Each rank
    normalises by its own rows, so the spread between the means of the ranks is in no variance.
    """
    features, labels = blobs(512)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    features[256:, 0] += 4
    features[256:, 1] *= 3
    train = packed_dataset(tmp_path / "t", features, labels)
    (together, alone), (others, _) = pair.run(keras_cases.moving_statistics, train)
    for ours, theirs in zip(together, others, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    (mean, variance), (whole_mean, whole_variance) = together, alone
    np.testing.assert_allclose(mean, whole_mean, atol=1e-5)
    np.testing.assert_allclose(variance[1:], whole_variance[1:], rtol=0.05)
    assert mean[0] == pytest.approx(2, abs=0.2)
    assert variance[1] == pytest.approx(5, abs=0.5)
    assert whole_variance[0] - variance[0] == pytest.approx(4, abs=0.3)


def test_rate_warms_up_when_asked(pair: HorovodJob, train: Dataset) -> None:
    """From the rate to twice the rate on two ranks."""
    assert pair.run(keras_cases.rates_of, train, 3).rank0 == pytest.approx([0.01, 0.015, 0.02, 0.02])
    assert pair.run(keras_cases.rates_of, train, 0)[1] == pytest.approx([0.02] * 4)


def test_metrics_that_are_no_means_are_those_of_all_rows(
    pair: HorovodJob, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """AUC and precision over both ranks are exact; a metric whose state is no sum is averaged by rows."""
    features, labels = blobs(333, classes=2)
    dataset = packed_dataset(tmp_path_factory.mktemp("m") / "m", features, labels, group_rows=40)
    (together, alone), (others, _) = pair.run(keras_cases.global_metrics, dataset)
    assert together == others
    for name in ("loss", "auc", "precision"):
        assert together[name] == pytest.approx(alone[name], rel=1e-5)
    assert 0 < together["largest"] <= alone["largest"]


REFUSED = {
    "batch_size": (
        {"batch_size": 32},
        ["takes no 'batch_size'", "`batch_rows` counts the rows of all ranks"],
    ),
    "validation_data": ({"validation_data": (1, 2)}, ["pass a data set as `validation`"]),
    "a slip": ({"class_weights": {0: 1.0}}, ["did you mean 'class_weight'?"]),
    "epochs": ({"epochs": 0}, ["epochs is too small"]),
    "initial_epoch": ({"initial_epoch": 1}, ["there is no epoch to train"]),
    "steps_per_epoch": ({"steps_per_epoch": 8}, ["up to 7: 500 rows in batches of 64"]),
    "warm-up": ({"warmup_epochs": 2}, ["the warm-up outlasts the fit"]),
    "schedule": (
        {"warmup_epochs": 1, "schedule": True},
        ["follows a schedule, or several rates, cannot be warmed up"],
    ),
    "backup": ({"callbacks": "backup"}, ["BackupAndRestore would bring back", "checkpoint_every_epochs=1"]),
    "no callback": ({"callbacks": "text"}, ["str is no Keras callback"]),
}


def test_what_a_fit_cannot_take_is_named(pair: HorovodJob, train: Dataset) -> None:
    for options, parts in REFUSED.values():
        for message, part in itertools.product(pair.run(keras_cases.refused, train, options), parts):
            assert part in message


@pytest.mark.long
def test_values_are_regressed_on_from_anyones_columns(pair: HorovodJob, tmp_path: Path) -> None:
    """Float labels, weights, a folder of Parquet that no store has seen."""
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 300))
    table = pa.table(
        {"b": b, "a": a.astype(np.float32), "price": 3 * a - b + 0.5, "w": random.integers(1, 4, 300)}
    )
    parquet.write_table(table.slice(0, 170), tmp_path / "1.parquet", row_group_size=50)
    parquet.write_table(table.slice(170), tmp_path / "2.parquet")
    for together, alone, losses in pair.run(keras_cases.regress, str(tmp_path)):
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)
        np.testing.assert_allclose(together[0].ravel(), [3, -1], atol=0.01)
        assert losses == pytest.approx([losses[0]] * 4, rel=1e-4, abs=1e-9)


def test_fewer_rows_than_ranks(pair: HorovodJob, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One row on two ranks can be evaluated and predicted; it cannot be trained on."""
    dataset = packed_dataset(tmp_path_factory.mktemp("one") / "one", *blobs(1), files=1)
    (values, shape), (others, nothing) = pair.run(keras_cases.evaluate_few, dataset)
    assert values == others
    assert (shape, nothing) == ((1, 3), (0, 3))
    for message in pair.run(keras_cases.refused, dataset, {}):
        assert message.startswith("fewer rows than one global batch: 1 < 64")


def test_the_page_about_ranks_runs_as_written(pair: HorovodJob, tmp_path: Path) -> None:
    """The Python of docs/ranks.md, on a table with its columns."""
    page = (Path(__file__).parents[2] / "docs" / "ranks.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    module: dict[str, Any] = {"__name__": "page"}
    exec(code, module)
    columns = {name: np.arange(2100) % 7 for name in ("distance", "hour", "passengers")}
    parquet.write_table(pa.table({**columns, "fare": np.arange(2100) % 7 / 2}), tmp_path / "t.parquet")
    metrics = pair.run(module["fit"], str(tmp_path / "t.parquet")).rank0
    assert len(metrics["loss"]) == 3
    assert metrics["loss"][-1] < metrics["loss"][0]


@pytest.mark.parametrize("label", [np.nan, 1e30], ids=["nan", "inf"])
def test_a_loss_that_is_no_number_on_one_rank_stops_both(
    pair: HorovodJob, tmp_path: Path, label: float
) -> None:
    """In training, found by a check and at the end of the epoch, or in validation: on rank 1 alone, whose
    rows come last. A square of 1e30 is infinite. Both ranks get one error, with epoch, step, rank and metric.
    """
    features, labels = blobs(256)
    good = labels.astype(np.float32)
    bad = good.copy()
    bad[146] = label  # of the rows 128 to 159, of which each of the 4 steps takes 8 in order
    healthy, sick = (packed_dataset(tmp_path / name, features, y) for name, y in (("g", good), ("b", bad)))
    value = "nan" if np.isnan(label) else "inf"
    where = "training stopped on all ranks: in epoch 1, at step"
    for parts, options, words in (
        ((sick, healthy), {"check_every_steps": 1}, f"{where} 3, the loss of rank 1 is {value}"),
        ((sick, healthy), {}, f"{where} 3, the loss of rank 1 is {value}"),
        ((healthy, sick), {}, f"{where} 4, the validation loss of rank 1 is {value}"),
    ):
        for message in pair.run(keras_cases.stopped_at, *parts, options):
            assert message.startswith(words)


@pytest.mark.long
def test_a_trial_is_ended_by_its_rule_and_one_that_diverges_leaves_the_ranks_alone(
    pair: HorovodJob, train: Dataset, tmp_path: Path
) -> None:
    """A search tries rates that are too high: ranks that were lost for each would start for 10 s."""
    validation = packed_dataset(tmp_path / "v", *blobs(101, seed=5))
    spec = KerasSpec(hidden=(4,), epochs=9, batch_rows=100)
    stop = AmongRivals(50.0, ((1e-6,) * 9,) * 5, warmup=2)
    ended, other = pair.run(try_keras, train, validation, spec, 3, "multiclass", None, stop)
    assert ended == other
    assert not isinstance(ended, DivergedError)
    assert len(ended["val_loss"]) == 3
    ranks = [rank.pid for rank in ranks_of_this_process()]
    wild = spec.model_copy(update={"rate": 1e30})
    for found in pair.run(try_keras, train, validation, wild, 3, "multiclass", None, None):
        assert isinstance(found, DivergedError)
    assert pair.run(keras_cases.rates_of, train, 0)
    assert [rank.pid for rank in ranks_of_this_process()] == ranks
