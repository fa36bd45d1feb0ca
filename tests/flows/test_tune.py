"""The search as it is declared: one node per trial, each knowing what is known by then."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from rich.console import Console

from flows.tune import tune
from ml_platform.errors import DataError, SpecError
from ml_platform.specs.references import Family
from ml_platform.specs.training import KerasSpec, MLlibSpec, SklearnSpec, XGBoostSpec
from ml_platform.specs.tuning import StudySpec, Trial
from tasks.study import RankedTrial, TuneReport
from tasks.tune import with_models

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


def test_where_no_family_gives_a_model_the_run_says_why() -> None:
    """With exit code 3, as for any data that cannot be learnt from."""
    failed = Trial(family="keras", parameters={}, state="failed", value=None, reason="the loss is inf")
    with pytest.raises(DataError, match="no trial of keras gave a model") as refused:
        with_models.fn([None], [[failed]])
    assert "keras: 1 × failed: the loss is inf" in str(refused.value)


def test_trials_that_were_not_run_are_counted_and_take_no_line() -> None:
    """Forty of them would hide what the others found. A page lists the others, too."""

    def line(number: int, state: Literal["complete", "not run"]) -> RankedTrial:
        value, reason = (0.1, "") if state == "complete" else (None, "the search has had its 20 s")
        same = {"family": "xgboost", "parameters": {}, "seconds": 1.0}
        return RankedTrial(number=number, state=state, value=value, reason=reason, **same)

    trials = (line(1, "complete"), *(line(number, "not run") for number in range(2, 40)))
    report = TuneReport.model_construct(
        metric="loss", trials=trials, importance={}, without_model={}, retrain=NoReport()
    )
    shown = io.StringIO()
    Console(file=shown, width=120).print(report)
    for text in (shown.getvalue(), report.markdown()):
        assert "xgboost 1" in text
        assert "xgboost 2" not in text
        assert "1 complete, 38 not run (the search has had its 20 s)" in text
    assert "more" not in shown.getvalue()
    assert len(report.rows()) == 39


def test_a_space_of_a_family_that_is_not_searched_is_refused() -> None:
    """It would be passed over in silence, with every mistake in it."""
    with pytest.raises(SpecError, match="there is a space for sklearn, which is not searched") as refused:
        tune.plan(space={"sklearn": {"l2": "0.1..1"}}, families=("xgboost",))
    assert "--families xgboost sklearn" in str(refused.value)


class NoReport:
    """Stands where the report of a retrain does."""

    def __rich__(self) -> str:
        return ""

    def markdown(self) -> str:
        return ""


def refuse(*_: object, **__: object) -> None:
    raise DataError("no such table")


@pytest.mark.long
@pytest.mark.spark
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("spark")
def test_a_study_leads_to_the_gate_and_a_longer_one_goes_on_from_it(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a table to a verdict and a leaderboard, although one family gives no model; of a trial more, that
    trial alone is new."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setattr("tasks.tune.train_pipeline", refuse)
    study = {"source": "sklearn:wine", "families": ("mllib", "sklearn"), "sklearn": SklearnSpec(trees=8)}
    with temporary_settings(updates={PREFECT_API_URL: server, PREFECT_LOGGING_TO_API_ENABLED: False}):
        report = tune(study=StudySpec(trials=2), **study)
    assert [trial.family for trial in report.trials] == ["sklearn"] * 2 + ["mllib"] * 2
    assert report.trials[0].value is not None
    assert report.without_model == {"mllib": ("2 × failed: no such table",)}
    assert "- no model     mllib: 2 × failed: no such table" in report.markdown()
    assert {model.family for model in report.retrain.models} == {"sklearn"}
    assert {model.part for model in report.retrain.models} == {"validation", "holdout"}
    assert report.retrain.verdict.decision == "cannot tell"
    assert "sklearn 1" in report.markdown()
    coming = tune.plan(study=StudySpec(trials=3), **study)
    trials = [node for node in coming.nodes if node.name.startswith("try_sklearn")]
    assert [node.verdict for node in trials] == ["cached", "cached", "run"]


@pytest.mark.long
@pytest.mark.spark
@pytest.mark.horovod
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("spark")
def test_real_trials_of_three_families_lead_to_the_best_model_of_all(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network on a rank, trees and a Pipeline on Spark: each family's best spec is trained once more, the
    best of these models is measured on the holdout, and MLflow has the pictures and what was learnt."""
    from mlflow import MlflowClient

    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    families: tuple[Family, ...] = ("keras", "xgboost", "mllib")
    with temporary_settings(updates={PREFECT_API_URL: server, PREFECT_LOGGING_TO_API_ENABLED: False}):
        report = tune(
            source="sklearn:wine",
            families=families,
            study=StudySpec(trials=2),
            space={"mllib": {"depth": "2..3"}, "keras": {"rate": "0.001..0.01 log"}},
            keras=KerasSpec(ranks=1, epochs=2, hidden=(8,)),
            xgboost=XGBoostSpec(trees=4),
            mllib=MLlibSpec(estimator="forest", trees=4),
        )
    trials = [(trial.family, trial.number) for trial in report.trials if trial.value is not None]
    assert sorted(trials) == sorted((family, number) for family in families for number in (1, 2))
    loss = {m.family: m.metrics["log_loss"].value for m in report.retrain.models if m.part == "validation"}
    assert set(loss) == set(families)
    chosen = [model.family for model in report.retrain.models if model.part == "holdout"]
    assert chosen == [min(loss, key=lambda family: loss[family])]

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = {run.info.run_name: run for run in client.search_runs(experiments, max_results=100)}
    whole = next(run for run in runs.values() if "mlflow.parentRunId" not in run.data.tags)
    files = {file.path for file in client.list_artifacts(whole.info.run_id)}
    drawn = ("history", "parallel_coordinates")
    wanted = {f"{what}_{family}.png" for what in drawn for family in families}
    assert wanted - files == set()
    assert {"trials.json", "tune.md", "report.md"} <= files
    assert {f"{family} {number}" for family in families for number in (1, 2)} <= runs.keys()
    learnt = runs["train_mllib"]
    assert learnt.data.params["family"] == "mllib"
    assert any(name.startswith("validation-") for name in learnt.data.metrics)
    assert "importance.png" in {file.path for file in client.list_artifacts(learnt.info.run_id)}
    assert [
        each.model_id
        for each in client.search_logged_models(experiments, f"source_run_id = '{learnt.info.run_id}'")
    ]
