"""Runs that nobody waits for: complete when the flow's run ends, whatever the server did meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ml_platform.errors import TrackingError
from ml_platform.tracking import later, open_tracking
from ml_platform.tracking.later import LaterRuns

pytestmark = pytest.mark.slow


class Server:
    """What MLflow's client is asked, and what it is told to do about it."""

    def __init__(self, *, fails: int = 0) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.fails = fails
        self.gate = threading.Event()
        self.gate.set()
        self.created = threading.Event()

    def create_run(self, _: str, *, run_name: str, **__: Any) -> Any:
        self.gate.wait(30)
        if self.fails:
            self.fails -= 1
            raise ConnectionError("no route to host")
        self.asked.append(("create", run_name))
        self.created.set()
        return type("Made", (), {"info": type("Info", (), {"run_id": run_name})})

    def log_batch(self, run_id: str, params: Any, metrics: Any, tags: Any) -> None:
        self.asked.append(("log", (run_id, len(params), len(metrics), len(tags))))

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        self.asked.append(("end", (run_id, status)))


@contextmanager
def waiting_for(server: Server) -> Iterator[None]:
    server.gate.clear()
    yield
    server.gate.set()


def test_what_waited_goes_in_one_request() -> None:
    """Nothing that a run notes waits for the server; 250 parameters are three requests."""
    server = Server()
    runs = LaterRuns(server, "7")  # type: ignore[arg-type]
    with waiting_for(server), runs.open("a", {}) as run:
        run.log_params({f"p{at}": at for at in range(250)})
        run.log_metrics({"loss": 0.5}, step=1)
        run.set_tags({"state": "pruned"})
    runs.finish()
    logged = [("log", ("a", 100, 1, 1)), ("log", ("a", 100, 0, 0)), ("log", ("a", 50, 0, 0))]
    assert server.asked == [("create", "a"), *logged, ("end", ("a", "FINISHED"))]


def test_a_server_that_was_away_gets_everything_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "PAUSE_AFTER_FAILURE_S", 0)
    server = Server(fails=1)
    runs = LaterRuns(server, "7")  # type: ignore[arg-type]
    with runs.open("a", {}) as run:
        run.log_metrics({"loss": 0.5})
        assert server.created.wait(30)
    runs.finish()
    assert [what for what, _ in server.asked] == ["create", "log", "end"]


def test_what_could_not_be_written_at_the_end_is_an_error() -> None:
    server = Server(fails=100)
    runs = LaterRuns(server, "7")  # type: ignore[arg-type]
    with waiting_for(server), runs.open("a", {}):
        pass
    with pytest.raises(TrackingError, match="could not start a run"):
        runs.finish()


def test_an_error_of_the_work_is_not_hidden_by_one_of_the_server(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("no")

    def work() -> None:
        with open_tracking(experiment="tune", run_name="brave-otter", tags={}) as run:
            monkeypatch.setattr(MlflowClient, "log_batch", refuse)
            with run.nested_later("a") as own:
                own.log_metrics({"loss": 1.0})
                raise ValueError("the work failed")

    with pytest.raises(ValueError, match="the work failed"):
        work()
    assert "runs could not be written" in caplog.text
