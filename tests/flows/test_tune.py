"""The search as it is declared: one node per trial, each knowing what is known by then."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.tune import tune
from ml_platform.specs.tuning import StudySpec

pytestmark = pytest.mark.slow


def test_every_task_can_be_cached_and_no_key_is_coarse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial without an identity would be run again by a study that goes on."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    plan = tune.plan()
    assert {decision.name: decision.uncacheable for decision in plan.nodes if decision.uncacheable} == {}
    assert plan.notes == ()


def test_trials_side_by_side_know_nothing_of_each_other() -> None:
    """On executors two at a time, on the ranks one after the other."""
    graph = tune.graph(study=StudySpec(trials=4, parallel=2))
    told = {name: graph[name].parents for name in ("ask_xgboost-4", "ask_keras-4")}
    assert set(told["ask_xgboost-4"]) == {"try_xgboost", "try_xgboost-2", "ask_xgboost-3"}
    assert set(told["ask_keras-4"]) == {"try_keras", "try_keras-2", "try_keras-3"}


def test_without_a_pruner_a_trial_is_keyed_by_its_point_and_the_data() -> None:
    graph = tune.graph(study=StudySpec(trials=3, pruner="none"), families=("xgboost",))
    data = {"apply_features", "apply_features-2", "fit_features"}
    assert set(graph["try_xgboost-3"].parents) == {"ask_xgboost-3", *data}
