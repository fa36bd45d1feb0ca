"""Training on two ranks: one fit, proved. All tests share one warm pair of ranks."""

from __future__ import annotations

import json
import re
import threading
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from ml_platform.resources import progress
from ml_platform.resources.horovod.job import HorovodJob
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import FeatureState
from ml_platform.specs.training import KerasSpec
from tasks.loops import fit_keras
from tests.gangs import warm_pair
from tests.worker import rank_functions
from tests.worker.tables import blobs, packed_dataset

pytestmark = pytest.mark.horovod


@pytest.fixture(scope="module")
def pair() -> HorovodJob:
    return warm_pair()


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return packed_dataset(tmp_path_factory.mktemp("data") / "train", *blobs(1000), files=3, group_rows=150)


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return packed_dataset(tmp_path_factory.mktemp("data") / "validation", *blobs(301, seed=5))


def test_ranks_end_with_equal_bytes_and_agree(pair: HorovodJob, train: Dataset, validation: Dataset) -> None:
    """With dropout and batch normalisation, which each rank does on rows and masks of its own."""
    first, second = pair.run(rank_functions.fit, train, validation)
    history, weights, _, fitted = first
    assert history.proof == second[0].proof
    assert history.proof["ranks"] == 2
    assert all(a.tobytes() == b.tobytes() for a, b in zip(weights, second[1], strict=True))
    assert history.metrics == second[0].metrics
    assert history.metrics["loss"][-1] < history.metrics["loss"][0]
    assert (history.steps, history.rows_dropped_per_epoch) == (15, 40)
    assert history.best_epoch == 1 + int(np.argmin(history.metrics["val_loss"]))
    assert set(history.metrics) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert second[3].model == b""
    assert fitted.history == history.metrics


def test_model_comes_back_plain(pair: HorovodJob, train: Dataset, validation: Dataset) -> None:
    """The archive opens in a process without Horovod: its optimizer is Keras' own."""
    _, _, module, fitted = pair.run(rank_functions.fit, train, validation).rank0
    assert module == "keras.src.optimizers.sgd"
    with zipfile.ZipFile(BytesIO(fitted.model)) as archive:
        config = json.loads(archive.read("config.json"))
    optimizer = config["compile_config"]["optimizer"]
    assert (optimizer["module"], optimizer["class_name"]) == ("keras.optimizers", "SGD")


def test_checkpoint_in_the_middle_opens_plain(pair: HorovodJob, train: Dataset, tmp_path: Path) -> None:
    """A callback that saves while the optimizer is distributed leaves a file that opens anywhere."""
    first, second = pair.run(rank_functions.checkpointed, train, tmp_path)
    assert (first, second) == (("keras.src.optimizers.sgd.SGD", 0.0), ("", 0.0))


def test_one_and_two_ranks_take_the_same_steps(pair: HorovodJob, train: Dataset) -> None:
    """More ranks do not change the mathematics: global losses agree to 1e-4 over 50 steps."""
    together, alone = pair.run(rank_functions.step_losses, train, 50).rank0
    assert len(together) == len(alone) == 50
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    assert np.mean(together[-10:]) < 0.8 * together[0], "it learns"


def test_without_reduction_the_proof_fails(pair: HorovodJob, train: Dataset) -> None:
    """The proof can fail: it names variables and ranks."""
    for message in pair.run(rank_functions.fit_without_reduction, train):
        assert message.startswith("ranks hold different models after training")
        assert "dense/kernel: ranks 1 differ from rank 0" in message


def test_sparse_and_missing_gradients_and_clipping(pair: HorovodJob, train: Dataset) -> None:
    """Sparse gradients stay sparse, None stays None, clipping comes after the reduction."""
    results = pair.run(rank_functions.fit_sparse, train)
    for kinds, together, alone in results:
        assert kinds >= {"IndexedSlices", "NoneType"}
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(results[0][1], results[1][1], strict=True))


def test_a_model_without_a_build_trains_by_its_own_step(pair: HorovodJob, train: Dataset) -> None:
    """As plain Keras would, which calls it first to see its weights."""
    (losses, weights), (_, others) = pair.run(rank_functions.fit_own_step, train)
    assert losses[1] < losses[0]
    assert [a.shape for a in weights] == [(4, 3), (3,)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(weights, others, strict=True))


def test_overflow_on_one_rank_is_skipped_by_both(pair: HorovodJob) -> None:
    """Loss scaling checks the reduced gradient: both skip the step, both halve the scale, both go on."""
    # 1.0 stays; then the mean of 2 and 4 divided by the halved scale of 1 is taken off.
    assert list(pair.run(rank_functions.overflow_on_one_rank)) == [([1.0, -2.0], [1.0])] * 2


def test_the_next_rows_are_read_while_a_step_works(pair: HorovodJob, train: Dataset) -> None:
    """One step was asked for, and the rows of the second are made."""
    for made in pair.run(rank_functions.chunks_made, train):
        assert len(made) >= 2


def test_prediction_and_evaluation_count_each_row_once(pair: HorovodJob, validation: Dataset) -> None:
    """301 rows on two ranks: in order, none twice, none left out."""
    (together, values, (alone, alone_values)), (nothing, others, _) = pair.run(
        rank_functions.predict_and_evaluate, validation
    )
    assert together.shape == (301, 3)
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert nothing.shape == (0, 3)
    assert values == others
    assert values == pytest.approx(alone_values, rel=1e-5)


def test_a_diverging_loss_stops_all_ranks(pair: HorovodJob, train: Dataset) -> None:
    for kind, message in pair.run(rank_functions.caught, train, {"rate": 1e30}):
        assert kind == "DivergedError"
        assert re.match(
            r"training stopped on all ranks: in epoch 1, at step \d+, the loss of ranks? .* is nan", message
        )


def test_ranks_that_build_different_models_are_told_so(pair: HorovodJob, train: Dataset) -> None:
    for kind, message in pair.run(rank_functions.caught, train, {"uneven": True}):
        assert kind == "DesyncError"
        assert "rank 1 built another model than rank 0" in message
        assert "[8, 16]" in message
        assert "[9, 16]" in message


def test_corrupt_file_is_a_data_error_in_the_middle_of_a_fit(pair: HorovodJob, tmp_path: Path) -> None:
    """TensorFlow hands on the text of an error of the feed; the error itself must arrive."""
    dataset = packed_dataset(tmp_path / "t", *blobs(256), files=1, group_rows=128)
    path = tmp_path / "t" / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[4:6000] = b"\xff" * 5996  # both row groups, so that both ranks meet it
    path.write_bytes(content)
    for kind, message in pair.run(rank_functions.caught, dataset, {"shuffle": False}):
        assert kind == "DataError"
        assert "part-00000.parquet: row group" in message


def test_metrics_and_progress_stream_to_the_caller(
    pair: HorovodJob, train: Dataset, validation: Dataset
) -> None:
    """Epoch by epoch, in the thread that called run; the real rank function of the flow."""
    heard: list[tuple[str, object]] = []
    threads = set()

    def on_metrics(values: object, step: int) -> None:
        threads.add(threading.current_thread())
        heard.append(("metrics", (step, set(values))))  # type: ignore[call-overload]

    spec = KerasSpec(hidden=(8,), epochs=3, patience=3)
    with progress.listening(lambda note: heard.append(("progress", (note.message, note.done, note.total)))):
        fitted = pair.run(fit_keras, train, validation, spec, 3, on_metrics=on_metrics).rank0
    names = {"loss", "accuracy", "val_loss", "val_accuracy", "rows_per_second"}
    expected = [(("metrics", (e, names)), ("progress", (f"epoch {e + 1}/3", e + 1, 3))) for e in range(3)]
    assert heard == [entry for pair_ in expected for entry in pair_]
    assert threads == {threading.current_thread()}
    assert fitted.epochs == 3
    assert len(fitted.model) > 1000


def test_numbers_are_learnt_by_the_flow_s_own_function(pair: HorovodJob, tmp_path: Path) -> None:
    """One linear output, squared error; two ranks end below what the mean would give, which is 1."""
    features = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
    labels = features[:, 0] - features[:, 1]
    labels /= labels.std()
    parts = [
        packed_dataset(tmp_path / name, features[rows], labels[rows])
        for name, rows in (("train", slice(0, 500)), ("validation", slice(500, 600)))
    ]
    spec = KerasSpec(hidden=(16,), epochs=8, patience=8, batch_rows=50, rate=0.02)
    fitted = pair.run(fit_keras, *parts, spec, 1, "regression").rank0
    assert set(fitted.history) >= {"loss", "mean_absolute_error", "val_loss"}
    assert fitted.history["val_loss"][-1] < 0.3
    assert fitted.proof["ranks"] == 2


@pytest.mark.long
def test_balanced_classes_count_alike(pair: HorovodJob, tmp_path: Path) -> None:
    """One row in twenty is of the second class: weighted, the network thinks it more likely."""
    random = np.random.default_rng(0)
    labels = (random.random(800) < 0.05).astype(np.int32)
    features = random.normal(labels[:, None] * 1.0, 1.0, (800, 2)).astype(np.float32)
    parts = [
        packed_dataset(tmp_path / name, features[rows], labels[rows])
        for name, rows in (("train", slice(0, 600)), ("validation", slice(600, 800)))
    ]
    counts = np.bincount(labels[:600])
    state = FeatureState(classes=("no", "yes"), class_counts=tuple(counts.tolist()), label="label")
    spec = KerasSpec(hidden=(8,), epochs=10, patience=10, batch_rows=50, rate=0.02)
    weights = dict(enumerate(state.balanced_weights))
    found = [
        pair.run(rank_functions.chance_of_the_second_class, *parts, spec, given).rank0
        for given in (None, weights)
    ]
    assert found[0] < 0.1
    assert found[1] > 2 * found[0]


@pytest.mark.long
def test_three_hundred_classes_are_learnt(pair: HorovodJob, tmp_path: Path) -> None:
    """By two ranks: every class has an output, and most rows are told apart."""
    parts = [
        packed_dataset(tmp_path / name, *blobs(rows, width=16, classes=300, seed=seed))
        for name, rows, seed in (("train", 6000, 1), ("validation", 600, 2))
    ]
    spec = KerasSpec(hidden=(64,), epochs=6, patience=6, batch_rows=200, rate=0.02)
    fitted = pair.run(fit_keras, *parts, spec, 300).rank0
    assert fitted.history["val_accuracy"][-1] > 0.3
    assert fitted.history["val_loss"][-1] < 0.7 * np.log(300)


def test_a_job_leaves_no_feed_with_its_row_groups_behind(
    pair: HorovodJob, train: Dataset, validation: Dataset
) -> None:
    pair.run(rank_functions.fit, train, validation)
    assert pair.run(rank_functions.feeds_left) == (0, 0)


def test_memory_that_a_feed_let_go_of_is_used_again(pair: HorovodJob, train: Dataset) -> None:
    """TensorFlow has all of it given back, and the kernel clears new pages more slowly than rows are read."""
    assert all(pages < 8 * 512 for pages in pair.run(rank_functions.pages_for_arrays, train))


CLEAN = ("float32", "float32", 1e-7, "channels_last", "dense")


def test_each_job_finds_a_clean_session(pair: HorovodJob) -> None:
    """Nothing of a job is left for the next one: types, policies, names, what an image looks like."""
    assert pair.run(rank_functions.soil_session).rank0 == "dense"
    assert set(pair.run(rank_functions.look_at_session)) == {CLEAN}


def test_a_job_listens_where_it_should_and_nowhere_else(pair: HorovodJob) -> None:
    """The driver: its rendezvous, on loopback, while the job runs. Ranks, once they are connected: nowhere.
    Horovod's own connections are neither signed nor encrypted: they stay on this machine."""
    before, seen = rank_functions.listening(), []
    ranks = pair.run(
        rank_functions.listening_addresses,
        on_metrics=lambda values, step: seen.append(rank_functions.listening() - before),
    )
    assert list(ranks) == [set(), set()]
    assert [[host for host, _ in found] for found in seen] == [["127.0.0.1"]]
    assert rank_functions.listening() == before
