"""Contract with the pinned Prefect: what the private calls in one file rely on."""

from __future__ import annotations

import inspect
import json
import urllib.request
from pathlib import Path

import prefect
import psutil
import pytest
from prefect.task_engine import run_task_async, run_task_sync

from ml_platform.engine.prefect_door import new_run_id
from ml_platform.engine.server import TemporaryServer

ENGINE = Path(__file__).parents[2] / "ml_platform" / "engine"


def test_task_runs_take_an_id_and_edges_per_parameter() -> None:
    for run in (run_task_sync, run_task_async):
        assert {"task_run_id", "parameters", "dependencies"} <= set(inspect.signature(run).parameters)


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
