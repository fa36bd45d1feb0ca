"""A run that somebody stops: its Spark job and its rank end, whichever door it came through."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from tests.scenarios.conftest import Project

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.spark, pytest.mark.horovod]

DEADLINE_S = 120
REACHED_S = 20
"""Whoever stops a run waits no longer."""
SIDE_BY_SIDE = """\
budget: {cores: 2}
spark:
  master: local[1]
  driver_memory_mib: 512
  conf:
    spark.driver.extraJavaOptions: -XX:TieredStopAtLevel=1 -XX:+UseSerialGC
"""
"""One core for the job, one for the rank: neither waits for the other."""


def wait_until(holds: Callable[[], bool], what: Callable[[], Any], seconds: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


def states(client: SyncPrefectClient, flow_run: str) -> dict[str, str]:
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
    return {run.name: run.state_name or "" for run in client.read_task_runs(flow_run_filter=of_run)}


@pytest.mark.parametrize("door", ["Ctrl-C", "the API"])
def test_it_reaches_the_spark_job_and_the_rank_and_leaves_no_task_run_running(
    door: str, project: Project, server: str, tmp_path: Path
) -> None:
    (tmp_path / "local.yaml").write_text(SIDE_BY_SIDE)
    environment = {"PREFECT_API_URL": server, "ML_PLATFORM_PLACEMENTS": str(tmp_path)}
    words = ("tests.scenarios.stopped", "--folder", str(tmp_path))
    with (
        project.start(*words, **environment) as running,
        temporary_settings(updates={PREFECT_API_URL: server}),
        get_client(sync_client=True) as client,
    ):
        for started in ("job", "rank"):
            wait_until(
                lambda name=started: (tmp_path / name).exists() or running.poll() is not None,  # type: ignore[misc]
                lambda: running.stderr and running.stderr.read(),
            )
        newest = max((project.home / "runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
        flow_run = json.loads(newest.read_text())["flow_run_id"]
        assert states(client, flow_run).keys() <= {"search", "train"}
        if door == "Ctrl-C":
            running.send_signal(signal.SIGINT)
        else:
            client.set_flow_run_state(flow_run, Cancelling())
        wait_until(lambda: project.leftovers() == [], project.leftovers, REACHED_S)
        assert running.wait(DEADLINE_S) == 130
        ended = {"Crashed", "Failed", "Cancelled"}
        wait_until(
            lambda: (
                set(found := states(client, flow_run)) == {"search", "train"} and set(found.values()) <= ended
            ),
            lambda: states(client, flow_run),
        )
        assert client.read_flow_run(flow_run).state.is_final()  # type: ignore[union-attr]
    record = json.loads(newest.read_text())
    assert {node["node"]: node["state"] for node in record["nodes"]} == {
        "search": "failed",
        "train": "failed",
    }
    assert list((project.home / "scratch").iterdir()) == []
