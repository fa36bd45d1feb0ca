"""Points that Optuna is asked for: valid, new, inside the space, and the same for equal studies."""

from __future__ import annotations

from typing import Literal

import pytest

from ml_platform.specs.training import KerasSpec, XGBoostSpec
from ml_platform.specs.tuning import Asked, Sampler, Space, StudySpec, Trial
from ml_platform.tuning.sampling import ask
from ml_platform.tuning.spaces import fits, read_space

TREES = XGBoostSpec()
SPACE = read_space("xgboost", {}, TREES)


def loss(asked: Asked) -> float:
    assert asked.parameters is not None
    return abs(float(str(asked.parameters["rate"])) - 0.1) + 0.01 * int(str(asked.parameters["depth"]))


def studied(study: StudySpec, space: Space = SPACE, *, lag: int = 1) -> list[Asked]:
    """Points of a study whose every third trial is ended, and whose every fifth fails."""
    asked: list[Asked] = []
    trials: list[Trial] = []
    for number in range(1, study.trials + 1):
        known = max(0, number - lag)
        point = ask(study, space, TREES, number, trials[:known], asked[known:])
        asked.append(point)
        state: Literal["complete", "pruned", "failed", "not run"] = "complete"
        state = "failed" if number % 5 == 0 else "pruned" if number % 3 == 0 else state
        value = None if state == "failed" else loss(point)
        curve = () if value is None else (value + 1, value)
        trials.append(
            Trial(family="xgboost", parameters=point.parameters or {}, state=state, value=value, curve=curve)
        )
    return asked


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("lag", [1, 3])
def test_equal_studies_ask_for_equal_points_all_valid_and_new(sampler: Sampler, lag: int) -> None:
    study = StudySpec(trials=15, sampler=sampler)
    asked = studied(study, lag=lag)
    assert asked == studied(study, lag=lag)
    points = [each.parameters for each in asked]
    assert all(point is not None and fits(TREES, point) for point in points)
    assert all(point not in points[:at] for at, point in enumerate(points))
    assert [each.parameters for each in studied(StudySpec(trials=15, sampler=sampler, seed=8))] != points


def test_a_longer_study_begins_as_the_shorter_one() -> None:
    """So that more trials may be asked for later, and none that is done runs again."""
    assert studied(StudySpec(trials=12))[:8] == studied(StudySpec(trials=8))


def test_what_trials_found_moves_the_points() -> None:
    """TPE asks near the optimum more often than chance does."""
    near = {
        sampler: sum(loss(each) < 0.1 for each in studied(StudySpec(trials=40, sampler=sampler)))
        for sampler in ("tpe", "random")
    }
    assert near["tpe"] > near["random"]


def test_a_grid_asks_for_every_point_once_and_then_for_none() -> None:
    space = read_space(
        "xgboost", {"xgboost": {"depth": "2..3", "subsample": "0.5 | 1.0 if depth = 3"}}, TREES
    )
    trials: list[Trial] = []
    points = []
    for number in range(1, 6):
        asked = ask(StudySpec(sampler="grid"), space, TREES, number, trials, [])
        points.append(asked.parameters)
        if asked.parameters is not None:
            trials.append(
                Trial(family="xgboost", parameters=asked.parameters, state="complete", value=float(number))
            )
    found = sorted((point for point in points[:3] if point), key=str)
    assert found == [{"depth": 2}, {"depth": 3, "subsample": 0.5}, {"depth": 3, "subsample": 1.0}]
    assert points[3:] == [None, None]
    assert "had been tried" in asked.reason


def test_points_under_way_are_not_asked_for_again() -> None:
    space = read_space("keras", {"keras": {"hidden": "[64] | [32]"}}, KerasSpec())
    study = StudySpec(sampler="random")
    first = ask(study, space, KerasSpec(), 1, [], [])
    second = ask(study, space, KerasSpec(), 2, [], [first])
    assert sorted([first.parameters, second.parameters], key=str) == [{"hidden": [32]}, {"hidden": [64]}]
    assert ask(study, space, KerasSpec(), 3, [], [first, second]).parameters is None


def test_after_its_seconds_a_study_asks_for_nothing() -> None:
    done = Trial(family="xgboost", parameters={"depth": 2}, state="complete", value=1.0, seconds=6)
    assert ask(StudySpec(seconds=7), SPACE, TREES, 2, [done], []).parameters is not None
    asked = ask(StudySpec(seconds=6), SPACE, TREES, 2, [done], [])
    assert (asked.parameters, asked.reason) == (None, "the search has had its 6 s")
