"""Contract with the pinned Prefect: what the private calls in one file rely on."""

from __future__ import annotations

import inspect
import json
import os
import urllib.request
from pathlib import Path

import prefect
import prefect.runtime
import psutil
import pytest
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed
from prefect.task_engine import _create_task_run_locally, run_task_async, run_task_sync

from ml_platform.engine import server as server_of
from ml_platform.engine.prefect_door import _new_run, new_run_id, run_node
from ml_platform.engine.server import TemporaryServer, prefect_api
from ml_platform.errors import DataError, InfrastructureError
from tests.engine.runs import FlowRun

ENGINE = Path(__file__).parents[2] / "ml_platform" / "engine"


def test_a_task_run_can_be_handed_in() -> None:
    for run in (run_task_sync, run_task_async):
        assert {"task_run", "parameters"} <= set(inspect.signature(run).parameters)


@pytest.mark.slow
def test_our_task_runs_have_what_prefect_gives_its_own(flow_run_of_tests: FlowRun) -> None:
    @prefect.task(retries=2, tags=["a"], version="7")
    def nothing() -> None: ...

    def both() -> tuple[TaskRun, TaskRun]:
        with prefect.tags("b"):
            theirs = _create_task_run_locally(nothing, id=new_run_id())
            return theirs, _new_run(nothing, "nothing", new_run_id(), {})

    theirs, ours = flow_run_of_tests.do(both)
    each = {"id", "name", "dynamic_key", "state", "state_id", "expected_start_time", "created", "updated"}
    shown = [run.model_dump(exclude=each) for run in (theirs, ours)]
    assert [sorted(run.pop("tags")) for run in shown] == [["a", "b"]] * 2
    assert shown[0] == shown[1]


@pytest.mark.slow
def test_arguments_are_handed_over_as_they_are(flow_run_of_tests: FlowRun) -> None:
    """Prefect would look for promises in every field, of which a wide table has many. No task sees that."""
    seen: list[object] = []

    @prefect.task
    def look(given: list[object], n: int) -> int:
        seen.extend([given, prefect.runtime.task_run.parameters])
        return n

    given = [Completed(data=1)]
    arguments = {"given": given, "n": 3}
    ran = flow_run_of_tests.do(
        lambda: run_node(look, arguments, name="look", run_id=new_run_id(), parents={})
    )
    assert ran == 3
    assert seen[0] is given
    assert seen[1] == arguments


def test_ids_are_of_the_kind_that_prefect_gives_to_task_runs() -> None:
    ids = {new_run_id() for _ in range(100)}
    assert len(ids) == 100
    assert {each.version for each in ids} == {7}


def test_private_prefect_is_named_in_one_file_only() -> None:
    naming = [path.name for path in ENGINE.glob("*.py") if "prefect._" in path.read_text()]
    assert naming == ["prefect_door.py"]


@pytest.mark.slow
def test_a_temporary_server_answers_on_loopback_and_leaves_nothing() -> None:
    server = TemporaryServer()
    try:
        with urllib.request.urlopen(f"{server.url()}/admin/version", timeout=10) as answer:
            assert json.load(answer) == prefect.__version__
        listening = {
            connection.laddr.ip
            for connection in psutil.Process(server._process.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
    finally:
        server.stop()
    assert not psutil.pid_exists(server._process.pid)


def test_what_fails_while_a_server_starts_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setattr(server_of, "configured_api", lambda: None)
    before, started = set(psutil.Process().children()), set[psutil.Process]()

    def fail() -> None:
        started.update(set(psutil.Process().children()) - before)
        raise DataError("there is no file")

    with pytest.raises(DataError), prefect_api(None, fail):
        raise AssertionError("the block was entered")
    assert started
    assert not any(process.is_running() for process in started)


@pytest.mark.slow
def test_a_server_that_was_killed_is_named_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Out of memory, say. Nobody records the lines that are still queued, and no end of a run."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setattr(server_of, "configured_api", lambda: None)
    monkeypatch.setattr(server_of, "wait_until_recorded", None)
    before = set(psutil.Process().children())

    def lose_it() -> None:
        (server,) = set(psutil.Process().children()) - before
        server.kill()
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        raise ConnectionError("refused")

    with pytest.raises(InfrastructureError, match="ended while a run") as caught, prefect_api(None, int):
        lose_it()
    assert caught.value.got == "exit code -9"
