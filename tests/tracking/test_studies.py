"""Trials: what they leave in MLflow, what counts as a failure, and a study that is killed and goes on."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from ml_platform.errors import DataError, DivergedError, RankError, RankLostError, SpecError, StoreError
from ml_platform.specs.references import Dataset
from ml_platform.specs.tracking import TrackingRun
from ml_platform.specs.training import XGBoostSpec
from ml_platform.specs.tuning import Asked, StudySpec, Trial
from ml_platform.tracking import open_tracking
from ml_platform.tracking.server import client
from ml_platform.tuning.attempt import OnMetrics, attempt
from ml_platform.tuning.board import best_trial
from ml_platform.tuning.pictures import BLUE
from ml_platform.tuning.pruning import Stop
from ml_platform.tuning.sampling import ask
from ml_platform.tuning.spaces import read_space
from tasks.study import explain_study
from tests.tuning import toys

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
Fit = Callable[[XGBoostSpec, Stop | None, OnMetrics], Sequence[float]]


def tried(
    run: TrackingRun, fit: Fit, *, number: int = 1, rate: float = 0.1, rivals: Sequence[Trial] = ()
) -> Trial:
    asked = Asked(number=number, parameters={"rate": rate})
    return attempt(
        "xgboost", asked, toys.BASE, fit, rivals=rivals, pruner="median", steps=8, metric="loss", run=run
    )


def trial_runs(run: TrackingRun) -> list[Run]:
    mlflow: MlflowClient = client()
    inside = f"tags.`mlflow.parentRunId` = '{run.run_id}'"
    return list(mlflow.search_runs([mlflow.get_run(run.run_id).info.experiment_id], inside))


def test_a_trial_is_a_nested_run_with_its_point_and_its_curve(run: TrackingRun) -> None:
    with open_tracking(experiment="tune", run_name="brave-otter", tags={}) as flows_run:
        trial = tried(flows_run, toys.curve_of, number=3, rate=0.3)
    assert (trial.state, trial.value, len(trial.curve)) == ("complete", pytest.approx(0.2 + 1 / 8), 8)
    assert trial.run_id == flows_run.run_id
    (found,) = trial_runs(flows_run)
    assert found.info.run_name == "xgboost 3"
    assert found.info.status == "FINISHED"
    assert found.data.metrics["best_loss"] == trial.value
    took_ms = found.info.end_time - found.info.start_time
    assert took_ms == pytest.approx(1000 * trial.seconds, abs=20)
    assert (found.data.tags["trial"], found.data.tags.get("trial.state")) == ("3", None)
    assert (found.data.params["xgboost.rate"], found.data.params["xgboost.trees"]) == ("0.3", "8")


def test_a_trial_behind_its_rivals_is_ended_early(run: TrackingRun) -> None:
    rivals = [tried(run, toys.curve_of, number=at, rate=0.1 + at / 100) for at in range(1, 6)]
    with open_tracking(experiment="tune", run_name="brave-otter", tags={}) as own:
        behind = tried(own, toys.curve_of, number=6, rate=0.5, rivals=rivals)
    assert behind.state == "pruned"
    assert [found.data.tags["trial.state"] for found in trial_runs(own)] == ["pruned"]
    assert len(behind.curve) < 8
    assert behind.reason == f"behind the others after {len(behind.curve)} steps"
    assert tried(run, toys.curve_of, number=7, rate=0.1, rivals=rivals).state == "complete"


def test_a_search_leaves_its_three_pictures(home: Path) -> None:
    """History, importance and parallel coordinates; the bars of importance are as long as the shares."""
    space = read_space("xgboost", {}, toys.BASE)
    asked: list[Asked] = []
    trials: list[Trial] = []
    for number in range(1, 13):
        asked.append(ask(StudySpec(), space, toys.BASE, number, trials, []))
        point = asked[-1].parameters or {}
        rate, depth = float(str(point["rate"])), int(str(point["depth"]))
        state, value = ("failed", None) if number == 3 else ("complete", abs(rate - 0.1) + depth / 100)
        trials.append(Trial(family="xgboost", parameters=point, state=state, value=value, metric="loss"))
    shares = explain_study.fn(trials, space, toys.BASE)
    assert set(shares) == {"rate", "depth", "subsample"}
    assert sum(shares.values()) == pytest.approx(1)

    drawn = {what: _picture(f"{what}_xgboost.png") for what in PICTURES}
    assert all(min(len(pixels), pixels.std()) > 10 for pixels in drawn.values()), "none is blank"
    lengths = _is_blue(drawn["importance_of_parameters"]).sum(axis=1)
    bars = [int(part.max()) for part in np.split(lengths, np.flatnonzero(lengths == 0)) if part.any()]
    assert bars == pytest.approx([bars[0] * share / max(shares.values()) for share in shares.values()], abs=3)


PICTURES = ("history", "importance_of_parameters", "parallel_coordinates")


def _picture(name: str) -> np.ndarray:
    """From the one run that there is."""
    experiments = [each.experiment_id for each in client().search_experiments()]
    (found,) = client().search_runs(experiments)
    with Image.open(client().download_artifacts(found.info.run_id, name)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def _is_blue(pixels: np.ndarray) -> np.ndarray:
    wanted = [int(BLUE[at : at + 2], 16) for at in (1, 3, 5)]
    return np.asarray((abs(pixels - wanted) < 8).all(axis=2))


def failing(error: Exception) -> Fit:
    def fit(spec: XGBoostSpec, stop: Stop | None, hear: OnMetrics) -> Sequence[float]:
        raise error

    return fit


def test_where_all_metrics_are_no_numbers_the_study_says_so(run: TrackingRun) -> None:
    trials = [tried(run, lambda *_: [0.5, math.nan], number=at) for at in (1, 2)]
    assert {trial.state for trial in trials} == {"failed"}
    with pytest.raises(DataError, match="no trial of xgboost gave a model") as refused:
        best_trial(trials)
    assert "2 × failed: the validation loss is nan" in str(refused.value)


def test_where_every_trial_fails_the_study_says_why(home: Path) -> None:
    """Bad data, a point that cannot be trained, an error in a rank: of the trial, not of the machine."""
    errors = [DivergedError("the loss is inf"), SpecError("no such batch"), RankError("a rank raised")]
    with open_tracking(experiment="tune", run_name="brave-otter", tags={}) as run:
        trials = [tried(run, failing(error), number=at) for at, error in enumerate(errors, 1)]
    assert {trial.state for trial in trials} == {"failed"}
    with pytest.raises(DataError) as refused:
        best_trial(trials)
    assert all(f"1 × failed: {error.what}" in str(refused.value) for error in errors)
    assert [found.info.status for found in trial_runs(run)] == ["FAILED"] * 3


@pytest.mark.parametrize("error", [RankLostError("rank 1 died"), StoreError("no space")])
def test_what_the_machine_does_says_nothing_about_a_point(error: Exception, run: TrackingRun) -> None:
    """The task fails and is tried again; nothing is stored as the result of the trial."""
    with pytest.raises(type(error)):
        tried(run, failing(error))


@pytest.mark.long
@pytest.mark.slow
def test_a_study_that_was_killed_goes_on_and_runs_no_trial_again(
    home: Path, server: str, tmp_path: Path
) -> None:
    """Killed with −9 in its fourth trial; then it asks for the points that it would have asked for. Its
    trials train real models."""
    parts = toys.write_parts(tmp_path)
    killed, went_on = (_study(tmp_path, home, server) for _ in range(2))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert went_on.returncode == 0, went_on.stderr
    numbers = (tmp_path / "tried").read_text().split()
    finished_before = {"1", "2"}  # the third may have been under way beside the fourth
    assert numbers.count("4") == 2
    assert all(numbers.count(number) == 1 for number in finished_before | {"5", "6"})
    assert went_on.stdout.splitlines()[-1] == str(_undisturbed(*parts))


def _study(folder: Path, home: Path, server: str) -> subprocess.CompletedProcess[str]:
    settings = {"PREFECT_API_URL": server, "PREFECT_LOGGING_TO_API_ENABLED": "false", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "tests.tuning.toys", str(folder)],
        env={**os.environ, **settings, "ML_PLATFORM_HOME": str(home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )


def _undisturbed(train: Dataset, validation: Dataset) -> list[object]:
    """The points of the same study without an engine."""
    asked: list[Asked] = []
    trials: list[Trial] = []
    for number in range(1, toys.STUDY.trials + 1):
        known = max(0, number - toys.STUDY.parallel)
        point = ask(toys.STUDY, toys.SPACE, toys.LINEAR, number, trials[:known], asked[known:])
        asked.append(point)
        spec = toys.LINEAR.model_copy(update=point.parameters)
        curve = tuple(toys.losses_of(train, validation, spec))
        trials.append(
            Trial(
                family="sklearn",
                parameters=point.parameters or {},
                state="complete",
                value=min(curve),
                metric="log_loss",
                curve=curve,
            )
        )
    return [trial.parameters for trial in trials]
