"""MLflow runs on a real database: what is logged can be read, and a run ends as its code did."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ml_platform.errors import TrackingError
from ml_platform.specs.references import Dataset, Model
from ml_platform.specs.tracking import TrackingRun
from ml_platform.specs.training import KerasSpec
from ml_platform.store.leftovers import builder
from ml_platform.tracking import runs
from ml_platform.tracking.later import LaterRuns
from ml_platform.tracking.metrics import MetricQueue
from ml_platform.tracking.server import client
from tests.tracking.conftest import opened

pytestmark = pytest.mark.slow


@pytest.fixture
def mlflow(home: Path) -> MlflowClient:
    return client()


def test_a_run_ends_finished_and_carries_its_tags(mlflow: MlflowClient) -> None:
    with opened() as run:
        assert mlflow.get_run(run.run_id).info.status == "RUNNING"
    ended = mlflow.get_run(run.run_id)
    assert (ended.info.status, ended.info.run_name) == ("FINISHED", "brave-otter")
    assert ended.data.tags["flow_run"] == "f-1"
    assert ended.data.tags["mlflow.user"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError, "FAILED"),
        (KeyboardInterrupt, "KILLED"),
        (SystemExit, "KILLED"),
        (CancelledError, "KILLED"),
    ],
)
def test_a_run_that_did_not_finish_says_how(
    error: type[BaseException], status: str, mlflow: MlflowClient
) -> None:
    """The error itself goes on to the caller, unchanged."""
    given = error("on purpose")
    with pytest.raises(error) as caught, opened() as run:
        raise given
    assert caught.value is given
    assert mlflow.get_run(run.run_id).info.status == status


def test_runs_of_a_killed_process_are_ended_by_the_next(
    mlflow: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a process that lives are let alone."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    with monkeypatch.context() as before:
        before.setattr(runs, "builder", lambda: builder().replace(f"-{os.getpid()}-", f"-{gone.pid}-"))
        experiment_id = _experiment_id(mlflow)
        later = LaterRuns(mlflow, experiment_id)
        writer = runs.Writer(mlflow, MetricQueue(mlflow), later, experiment_id, {})
        killed = runs._start(writer, "killed", runs._origin())
    with opened() as living, opened():
        assert mlflow.get_run(living.run_id).info.status == "RUNNING"
    assert mlflow.get_run(killed.run_id).info.status == "KILLED"


def _experiment_id(mlflow: MlflowClient) -> str:
    with opened() as run:
        return str(mlflow.get_run(run.run_id).info.experiment_id)


def test_nested_runs_hang_below_the_flows_run_and_end_on_their_own(mlflow: MlflowClient) -> None:
    with opened() as run:
        with pytest.raises(ValueError, match="diverged"), run.nested("train_keras") as child:
            raise ValueError("diverged")
        found = mlflow.get_run(child.run_id)
        assert found.data.tags["mlflow.parentRunId"] == run.run_id
        assert (found.data.tags["flow_run"], found.info.status) == ("f-1", "FAILED")
    assert mlflow.get_run(run.run_id).info.status == "FINISHED"


def test_parameters_beyond_one_request_are_all_there(run: TrackingRun, mlflow: MlflowClient) -> None:
    run.log_params({"keras": KerasSpec(), **{f"p{i}": i for i in range(250)}})
    params = mlflow.get_run(run.run_id).data.params
    assert params["keras.hidden"] == "[128, 64]"
    assert [params[f"p{i}"] for i in (0, 249)] == ["0", "249"]


def test_a_changed_parameter_is_an_error_with_its_cause(run: TrackingRun) -> None:
    run.log_params({"epochs": 1})
    with pytest.raises(TrackingError, match=r"could not take parameters(?s:.*)epochs") as caught:
        run.log_params({"epochs": 2})
    assert type(caught.value.__cause__).__name__ == "MlflowException"


def test_curves_are_visible_while_the_run_is_open_and_complete_when_it_ends(mlflow: MlflowClient) -> None:
    """Three threads log at once, more points than one request holds; none is lost."""

    def log(name: str) -> None:
        for step in range(900):
            run.log_metrics({name: 1 / (step + 1)}, step=step)

    with opened() as run:
        run.log_metrics({"first": 1.0})
        assert mlflow.get_run(run.run_id).data.metrics == {"first": 1.0}
        threads = [threading.Thread(target=log, args=(name,)) for name in ("a", "b", "c")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name in ("a", "b", "c"):
        history = mlflow.get_metric_history(run.run_id, name)
        assert [point.step for point in sorted(history, key=lambda point: point.step)] == list(range(900))


def test_metrics_of_another_run_are_there_when_this_one_ends(mlflow: MlflowClient) -> None:
    with opened() as run:
        with run.nested("train") as child:
            pass
        run.log_metrics({"warm": 1})
        run.at(child.run_id).log_metrics({"holdout/log_loss": 0.1})
    assert mlflow.get_run(child.run_id).data.metrics == {"holdout/log_loss": 0.1}


def test_metrics_can_belong_to_a_model_and_a_data_set(
    run: TrackingRun, model: Model, train: Dataset, mlflow: MlflowClient
) -> None:
    run.at(model.run_id).log_metrics({"accuracy": 0.9}, model=model, dataset=train)
    (metric,) = mlflow.get_logged_model(model.uri.removeprefix("models:/")).metrics
    assert (metric.key, metric.value, metric.dataset_name) == ("accuracy", 0.9, "train")


def test_an_input_shows_fingerprint_and_purpose(
    run: TrackingRun, train: Dataset, mlflow: MlflowClient
) -> None:
    run.log_input(train, context="training")
    (given,) = mlflow.get_run(run.run_id).inputs.dataset_inputs
    assert given.dataset.digest == train.fingerprint[:36]
    assert json.loads(given.dataset.source) == {"uri": train.uri}
    assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "training")]


def test_pictures_texts_and_tags_are_stored(
    run: TrackingRun, mlflow: MlflowClient, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Files go beside the database, whatever folder the run works in."""
    from matplotlib.figure import Figure

    here = tmp_path / "elsewhere"
    here.mkdir()
    monkeypatch.chdir(here)
    figure = Figure()
    figure.subplots().plot([1, 2])
    run.log_figure(figure, "pictures/curve.png")
    run.log_text("# Report", "report.md")
    run.set_tags({"verdict": "promote", "long": "x" * 9_000})
    assert [file.path for file in mlflow.list_artifacts(run.run_id)] == ["pictures", "report.md"]
    assert list((home / "mlartifacts").rglob("curve.png"))
    assert not list(here.iterdir())
    tags = mlflow.get_run(run.run_id).data.tags
    assert (tags["verdict"], len(tags["long"])) == ("promote", 8_000)


def test_a_refused_metric_is_an_error_at_once_and_does_not_block_the_rest(mlflow: MlflowClient) -> None:
    with opened() as run, pytest.raises(TrackingError, match="could not take metrics"):
        run.log_metrics({"a//b": 1})
    assert mlflow.get_run(run.run_id).info.status == "FINISHED"


def test_an_unknown_run_cannot_be_opened(run: TrackingRun) -> None:
    with pytest.raises(TrackingError, match="could not read run 0123"):
        run.at("0123")


def test_a_deleted_experiment_says_how_to_restore_it(mlflow: MlflowClient) -> None:
    mlflow.delete_experiment(mlflow.create_experiment("retrain"))
    with pytest.raises(TrackingError, match="mlflow experiments restore --experiment-id 1"), opened():
        pass


def test_mlflow_says_nothing_on_the_terminal(mlflow: MlflowClient, capfd: pytest.CaptureFixture[str]) -> None:
    with opened() as run:
        run.log_metrics({"a": 1})
    assert capfd.readouterr() == ("", "")
