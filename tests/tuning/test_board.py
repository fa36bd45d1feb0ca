"""The best trial, the order of all, and what is said where there is none."""

from __future__ import annotations

import math
from typing import Literal

import pytest

from ml_platform.errors import DataError
from ml_platform.specs.training import XGBoostSpec
from ml_platform.specs.tuning import Trial
from ml_platform.tuning import pictures
from ml_platform.tuning.attempt import losses
from ml_platform.tuning.board import any_complete, best_trial, no_model, ranked, searched_seconds
from ml_platform.tuning.spaces import read_space


def trial(
    value: float | None,
    state: Literal["complete", "pruned", "failed", "not run"] = "complete",
    reason: str = "",
) -> Trial:
    parameters = {"rate": 0.1 if value is None else min(0.5, 0.02 + value), "depth": 3, "subsample": 0.8}
    return Trial(family="xgboost", parameters=parameters, state=state, value=value, reason=reason)


MIXED = [
    trial(None, "failed"),
    trial(0.3),
    trial(0.1, "pruned"),
    trial(0.2),
    trial(None, "not run"),
    trial(0.2),
]


def test_the_best_is_the_first_complete_trial_with_the_lowest_loss() -> None:
    """A trial that was ended has a loss that is not its last word."""
    assert best_trial(MIXED) is MIXED[3]
    assert [number for number, _ in ranked(MIXED)] == [4, 6, 2, 3, 1, 5]


def test_where_every_trial_fails_all_reasons_are_said() -> None:
    failed = [trial(None, "failed", "the validation loss is nan")] * 3 + [trial(None, "not run", "no time")]
    with pytest.raises(DataError) as refused:
        best_trial(failed)
    said = str(refused.value)
    assert "no trial of xgboost gave a model" in said
    assert "3 × failed: the validation loss is nan" in said
    assert "1 × not run: no time" in said


def test_where_all_families_fail_each_says_why() -> None:
    networks = trial(None, "failed", "the loss is inf").model_copy(update={"family": "keras"})
    assert not any_complete([networks])
    said = str(no_model([networks, trial(None, "not run", "no time")]))
    assert "no trial of keras or xgboost gave a model" in said
    assert "keras: 1 × failed: the loss is inf" in said
    assert "xgboost: 1 × not run: no time" in said


def test_a_search_has_taken_as_long_as_any_trial_of_it_ran() -> None:
    """Two at once count once; the night between a kill and the next start does not count."""
    spans = [(100.0, 10.0), (105.0, 10.0), (106.0, 2.0), (50_000.0, 5.0)]
    trials = [trial(0.1).model_copy(update={"began": began, "seconds": took}) for began, took in spans]
    assert searched_seconds(trials) == 15.0 + 5.0
    assert searched_seconds([]) == 0.0


def test_losses_are_in_the_unit_of_the_label() -> None:
    """So that trials of a network and of trees stand in one table."""
    assert losses({"loss": [9.0], "val_loss": [4.0, 1.0]}, "regression", scale=10) == [20.0, 10.0]
    trees = {"train-rmse": [9.0], "validation-rmse": [2.0, 1.0]}
    assert losses(trees, "regression", scale=10) == [20.0, 10.0]
    assert losses({"val_loss": [4.0]}, "binary", scale=1) == [4.0]
    assert losses({"validation-logloss": [4.0]}, "binary", scale=1) == [4.0]


def test_importance_is_shared_out_among_what_every_trial_was_asked_for() -> None:
    base = XGBoostSpec()
    space = read_space("xgboost", {}, base)
    complete = [trial(0.05 * at) for at in range(1, 9)]
    shares = pictures.importance(complete, space, base)
    assert next(iter(shares)) == "rate"
    assert math.isclose(sum(shares.values()), 1)
    assert pictures.importance(complete[:3], space, base) == {}


@pytest.mark.parametrize("trials", [MIXED, [trial(None, "failed")], [trial(0.1)]])
def test_pictures_are_drawn_of_any_study(trials: list[Trial]) -> None:
    space = read_space("xgboost", {"xgboost": {"rate": "0.02..0.5 log", "depth": "3"}}, XGBoostSpec())
    for figure in (pictures.draw_history(trials, "trees"), pictures.draw_parallel(trials, space, "trees")):
        figure.canvas.draw()
