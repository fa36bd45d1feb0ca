"""The way to MLflow when it is down, broken, locked with a password, or a real server."""

from __future__ import annotations

import base64
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest

from ml_platform.errors import TrackingError
from ml_platform.inference.raw_model import load_raw_model
from ml_platform.resources.ports import free_port
from ml_platform.specs.references import Dataset
from ml_platform.store.digests import digest
from ml_platform.tracking import (
    champion,
    check_tracking,
    fetch,
    find,
    how_to_open,
    promote,
    register,
)
from ml_platform.tracking.locks import exclusive
from ml_platform.tracking.server import ask, client
from tests.tracking.conftest import log, opened, serving


class Answers(ThreadingHTTPServer):
    """A server that answers everything in one way, and remembers what it was sent."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Always)
        self.status, self.body = status, body
        self.authorizations: list[str | None] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Always(BaseHTTPRequestHandler):
    server: Answers

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.authorizations.append(self.headers.get("Authorization"))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def answering(status: int, body: bytes = b"oops") -> Iterator[Answers]:
    with Answers(status, body) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_a_server_that_answers_500_is_found_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(500) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{server.address}")
        with pytest.raises(
            TrackingError, match=f"MLflow server http://{server.address} does not serve"
        ) as caught:
            check_tracking()
    assert caught.value.exit_code == 5
    assert caught.value.got == "500 Internal Server Error"
    assert caught.value.evidence == "oops"
    assert "restart it" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (401, b"", "MLFLOW_TRACKING_USERNAME"),
        (403, b"no", "MLFLOW_TRACKING_PASSWORD"),
        (404, b"not here", "is another program listening there?"),
        (200, b"<html>welcome</html>", "is another program listening there?"),
    ],
)
def test_other_answers_say_what_to_do(
    status: int, body: bytes, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(status, body) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{server.address}")
        with pytest.raises(TrackingError) as caught:
            check_tracking()
    assert hint in str(caught.value)


def test_a_server_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with pytest.raises(TrackingError, match=f"MLflow at http://127.0.0.1:{port} could not answer") as caught:
        check_tracking()
    assert "Connection refused" in str(caught.value.got)
    assert caught.value.__cause__ is not None
    assert "is the MLflow server" in str(caught.value.hint)


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml_platform.tracking.server.CHECK_TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(TrackingError, match="no answer in time"):
            check_tracking()


def test_credentials_in_the_address_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, b"{}") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:can%40ry@{server.address}")
        check_tracking()
    assert server.authorizations == ["Basic " + base64.b64encode(b"ada:can@ry").decode()]


def _open_a_run() -> None:
    with opened():
        pass


DOORS: dict[str, Callable[[], object]] = {
    "check": check_tracking,
    "run": _open_a_run,
    "champion": lambda: champion("retrain"),
    "find": lambda: find("models:/retrain@champion"),
    "fetch": lambda: fetch("models:/m-1"),
    "open": lambda: how_to_open("0123"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", ["down", "500", "401", "garbage"])
@pytest.mark.parametrize("secret", ["ada:canary", "canary"], ids=["password", "token"])
def test_no_error_shows_the_password(
    door: str, kind: str, secret: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither its text, nor its causes with their tracebacks, nor what is logged on the way."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with answering({"500": 500, "401": 401}.get(kind, 200)) as server:
        address = f"127.0.0.1:{free_port()}" if kind == "down" else server.address
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{secret}@{address}")
        with pytest.raises(TrackingError) as caught:
            DOORS[door]()
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
    assert address in shown
    # A source line of the test itself may be in the traceback; it holds no address.
    assert "canary@" not in shown
    assert "ada:canary" not in shown


def test_an_address_without_a_run_is_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:canary@mlflow:5000/")
    assert how_to_open() == "http://mlflow:5000"


def test_a_database_is_opened_by_a_command(home: Path) -> None:
    assert how_to_open("0123").endswith(f"mlflow ui --backend-store-uri sqlite:///{home}/mlflow.db")


def test_a_broken_database_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    (tmp_path / "mlflow.db").write_text("this is no database" * 100)
    with pytest.raises(TrackingError, match="could not open MLflow's database") as caught:
        check_tracking()
    assert "file is not a database" in str(caught.value)


def test_a_database_without_its_driver_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql+pymysql://ada:canary@localhost/mlflow")
    with pytest.raises(TrackingError, match=r"No module named(?s:.*)pymysql") as caught:
        check_tracking()
    assert "mysql+pymysql://***@localhost/mlflow" in str(caught.value)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_mlflow_is_asked_again_where_another_thread_is_importing_pyspark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MLflow's own entities look into `pyspark.ml` as soon as its import has begun: trees that begin to train
    beside a task that is measured are no failure of MLflow's."""
    import pyspark.ml.param
    from mlflow.entities import Param

    whole = pyspark.ml
    monkeypatch.delattr(pyspark, "ml")
    monkeypatch.setattr(pyspark.__spec__, "_uninitialized_submodules", ["ml"])
    monkeypatch.setattr("ml_platform.tracking.server.PASSING_WAITS_S", (0, 0))
    asked = []

    def read() -> Param:
        asked.append(1)
        if len(asked) == 2:
            monkeypatch.setattr(pyspark, "ml", whole, raising=False)
        return Param("rate", "0.1")

    assert ask("read a run", read).value == "0.1"
    assert len(asked) == 2


def test_settings_of_the_person_are_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "99")
    client()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "99"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"


def test_a_lock_that_is_held_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    with (
        exclusive(lock, what="promote"),
        pytest.raises(TrackingError, match="another process holds the lock"),
        exclusive(lock, what="promote", timeout_s=0),
    ):
        pass
    with exclusive(lock, what="promote", timeout_s=0):
        pass


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_may_make_the_database_at_once(tmp_path: Path) -> None:
    script = "from ml_platform.tracking import check_tracking; check_tracking()"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "ML_PLATFORM_HOME": str(tmp_path),
    }
    both = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [(one.communicate(timeout=120)[1], one.returncode) for one in both] == [("", 0), ("", 0)]


@pytest.mark.long
@pytest.mark.slow
def test_everything_works_through_a_real_server_and_survives_its_restart(
    migrated: Path,
    raw_folder: Path,
    train: Dataset,
    example: pa.Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Metrics logged while the server is down are kept, and are there when the run has ended."""
    shutil.copyfile(migrated, tmp_path / "mlflow.db")
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("ml_platform.tracking.metrics.SEND_EVERY_S", 0.0)
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with serving(tmp_path, port) as uri:
        check_tracking()
        holding = opened()
        run = holding.__enter__()
        model = log(run, raw_folder, train, example)
        run.log_metrics({"loss": 1.0}, step=0)
        version = register(model, "retrain", tags={"gate.decision": "promote"}, holdout="cd" * 32)
        assert promote(version, None) == champion("retrain") == version
        assert digest(fetch("models:/retrain@champion")) == digest(raw_folder)
        assert load_raw_model(fetch(version)).classes == model.classes
        experiment = client().get_run(run.run_id).info.experiment_id
        assert how_to_open(run.run_id) == f"{uri}/#/experiments/{experiment}/runs/{run.run_id}"
    run.log_metrics({"loss": 0.5}, step=1)
    with serving(tmp_path, port):
        holding.__exit__(None, None, None)
        steps = [point.step for point in client().get_metric_history(run.run_id, "loss")]
        assert sorted(steps) == [0, 1]
        assert client().get_run(run.run_id).info.status == "FINISHED"
