"""Pictures show what they are about: names, counts, curves; in any thread, without global state."""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.evaluation.pictures import draw_confusion, draw_learning_curves, draw_reliability
from ml_platform.evaluation.speed import draw_speed, speed_of


def _rows(rows: int, classes: int, *, unknown: int = 0, failed: int = 0) -> pa.Table:
    rng = np.random.default_rng(0)
    label = rng.integers(0, classes, rows)
    predicted = np.where(rng.random(rows) < 0.8, label, rng.integers(0, classes, rows))
    label[:unknown] = -1
    predicted[rows - failed :] = -1
    confidence = rng.beta(8, 2, rows)
    return pa.table({"label": label, "predicted": predicted, "confidence": confidence})


def _texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_a_matrix_names_its_classes_and_counts_every_row() -> None:
    figure = draw_confusion(_rows(200, 3), ["red", "green", "blue"], "keras on the holdout")
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["red", "green", "blue"]
    assert sum(int(text) for text in _texts(axes)) == 200
    assert axes.get_title().startswith("keras on the holdout\n")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "actual")


def test_unknown_labels_and_failed_rows_have_their_place() -> None:
    axes = draw_confusion(_rows(50, 2, unknown=3, failed=2), ["a", "b"], "t").axes[0]
    assert axes.get_yticklabels()[-1].get_text() == "(unknown)"
    assert axes.get_xticklabels()[-1].get_text() == "(no prediction)"
    assert sum(int(text) for text in _texts(axes)) == 50


def test_many_classes_show_the_commonest_confusions() -> None:
    rows = pa.table({"label": [5] * 9 + [7] * 3 + [1], "predicted": [6] * 9 + [8] * 3 + [1]})
    axes = draw_confusion(rows, [f"c{i}" for i in range(40)], "t").axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["c5 → c6", "c7 → c8"]
    assert _texts(axes) == ["9", "3"]
    assert "12 of 13 rows wrong" in axes.get_title()


def test_many_classes_without_a_mistake_still_make_a_picture() -> None:
    rows = pa.table({"label": list(range(40)), "predicted": list(range(40))})
    assert "0 of 40 rows wrong" in draw_confusion(rows, [str(i) for i in range(40)], "t").axes[0].get_title()


@pytest.mark.parametrize(
    "history",
    [
        {"loss": [2.0, 1.0], "val_loss": [2.1, 1.2]},
        {"train-mlogloss": [2.0, 1.0], "validation-mlogloss": [2.1, 1.2]},
    ],
    ids=["keras", "xgboost"],
)
def test_curves_of_both_parts_share_a_panel(history: dict[str, list[float]]) -> None:
    figure = draw_learning_curves(history, "t", step="round")
    (axes,) = figure.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines["training"] == [2.0, 1.0]
    assert lines["validation"] == [2.1, 1.2]
    assert axes.get_title() == "best validation 1.2 at round 2"
    assert axes.get_xlabel() == "round"


def test_the_best_accuracy_is_the_highest() -> None:
    figure = draw_learning_curves({"val_accuracy": [0.4, 0.9, 0.8]}, "t")
    assert figure.axes[0].get_title() == "best validation 0.9 at epoch 2"


def test_curves_that_broke_down_are_drawn() -> None:
    figure = draw_learning_curves(
        {"loss": [1.0, float("nan")], "val_loss": [float("nan")] * 2, "lr": []}, "t"
    )
    figure.savefig(io.BytesIO())
    assert len(figure.axes) == 1


def test_no_curves_make_an_empty_picture() -> None:
    assert draw_learning_curves({}, "t").axes == []


def test_reliability_counts_rows_that_have_a_prediction() -> None:
    rows = pa.table({"label": [0, 1, -1], "predicted": [0, 0, -1], "confidence": [0.95, 0.95, 0.0]})
    upper, lower = draw_reliability(rows, "t").axes
    model = next(line for line in upper.lines if line.get_label() == "model")
    assert list(model.get_ydata()) == [0.5]
    assert [text for text in _texts(lower) if text] == ["2"]


def test_names_that_would_break_the_drawing_are_drawn_as_they_are() -> None:
    """A dollar is no formula, a long name is cut, an empty one is said."""
    names = ["a $\\frac{", "", "x" * 300]
    figure = draw_confusion(_rows(60, 3), names, "t")
    figure.savefig(io.BytesIO())
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels[1] == "(empty)"
    assert labels[2] == "x" * 17 + "…"


@pytest.mark.parametrize("epochs", [1, 2, 61])
def test_speed_has_whole_epochs_and_each_phase_of_each_rank(epochs: int) -> None:
    """One epoch too: there is no epoch 0.96."""
    seconds = [{"compute": 5.0, "allreduce": 1.0, "validation": 0.5, "feed": 0.7}] * 2
    rates = [900.0] * epochs
    speed = speed_of(rates, seconds, launch_s=1.5, alone_rows_per_second=500.0)
    left, right = draw_speed(speed, rates, "t").axes
    assert all(tick == int(tick) for tick in left.get_xticks())
    assert left.get_title() == "900 rows/s, 90% of ideal scaling"
    assert [text.get_text() for text in right.get_yticklabels()] == ["rank 0", "rank 1"]
    assert [round(float(bar.get_width()), 6) for bar in right.patches[::2]] == [1.5, 5.0, 1.0, 0.5, 0.7]


def test_pictures_are_drawn_in_threads_without_pyplot() -> None:
    def png(seed: int) -> bytes:
        out = io.BytesIO()
        draw_confusion(_rows(100 + seed, 4), list("abcd"), "t").savefig(out)
        return out.getvalue()

    had_pyplot = "matplotlib.pyplot" in sys.modules
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(png, [0, 1, 0, 1]))
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert pictures[0] == pictures[2]
    assert pictures[0] != pictures[1]
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot
