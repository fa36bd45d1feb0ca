"""A search as a user runs it: a command that leads from a table to a champion, or to an exit code."""

from __future__ import annotations

import pytest

from tests.scenarios.conftest import Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.spark,
    pytest.mark.horovod,
    pytest.mark.long,
    pytest.mark.timeout(600),
]

SEARCH = (
    "--source",
    "sklearn:digits",
    "--families",
    "xgboost",
    "--study.trials",
    "2",
    "--xgboost.trees",
    "5",
)


def test_a_search_promotes_the_best_model_and_nothing_is_left_running(project: Project) -> None:
    outcome = project.run("flows.tune", *SEARCH, "--json")
    assert outcome.code == 0, outcome.err
    report = outcome.json
    assert [trial["state"] for trial in report["trials"]] == ["complete"] * 2
    losses = [trial["value"] for trial in report["trials"]]
    assert losses == sorted(losses)
    assert {model["family"] for model in report["retrain"]["models"]} == {"xgboost"}
    assert report["retrain"]["verdict"]["decision"] == "promote"
    assert project.leftovers() == []


def test_where_all_trials_fail_the_command_says_why_and_ends_with_3(project: Project) -> None:
    """Points that no library takes: data of the search, not a fault of the machine."""
    options = ["--space.keras.rate", "1e30..1e38 log", "--keras.epochs", "2", "--keras.ranks", "1"]
    outcome = project.run("flows.tune", *SEARCH[:2], "--families", "keras", "--study.trials", "2", *options)
    assert outcome.code == 3, outcome.err
    said = " ".join(outcome.err.split())
    assert "no trial of keras gave a model" in said
    assert "2 × failed" in said
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
