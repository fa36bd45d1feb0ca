"""The main job on a real cluster by placement alone: the same flow and command, other values in a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ml_platform.resources.placement import load_placement
from tests.clusters import QUICK_JAVA, standalone_cluster
from tests.scenarios.conftest import Project

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.spark, pytest.mark.horovod]

SMALL = ("--source", "sklearn:wine", "--xgboost.trees", "5", "--keras.epochs", "2", "--gate.minimum-rows=5")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its folder, with logs and with `placements/cluster.yaml`: as shipped, but for the port of the master
    and for JVMs that compile less."""
    folder = tmp_path_factory.mktemp("cluster")
    with standalone_cluster(folder) as master:
        placement = load_placement("cluster")
        java = {f"spark.{side}.extraJavaOptions": QUICK_JAVA for side in ("driver", "executor")}
        changes = {"master": master, "conf": {**placement.spark.conf, **java}}
        there = placement.model_copy(update={"spark": placement.spark.model_copy(update=changes)})
        (folder / "placements").mkdir()
        (folder / "placements" / "cluster.yaml").write_text(there.model_dump_json())
        yield folder
    deadline = time.monotonic() + 60
    while left := _processes_in(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.timeout(900)
def test_retrain_on_a_cluster_by_placement_alone(project: Project, cluster: Path, server: str) -> None:
    """Two ranks of the backend spark, an executor on each worker; everything else is as ever."""
    outcome = project.run(
        "flows.retrain",
        *SMALL,
        "--placement",
        "cluster",
        "--json",
        timeout=800,
        ML_PLATFORM_PLACEMENTS=str(cluster / "placements"),
        PREFECT_API_URL=server,
    )
    assert outcome.code == 0, outcome.err
    report = outcome.json
    assert {model["family"] for model in report["models"]} == {"keras", "xgboost"}
    assert next(model["ranks"] for model in report["models"] if model["family"] == "keras") == 2
    assert report["predictions"]["rows"] == 178
    logs = sorted(project.home.glob("runs/*/ranks-2/rank-*.log"))
    assert [log.name for log in logs] == ["rank-0.log", "rank-1.log"]
    assert all("tasks.loops.fit_keras" in log.read_text() for log in logs)
    assert "backend spark" in (logs[0].parent / "launch.txt").read_text()
    workers = [(cluster / f"worker-{number}.log").read_text() for number in (0, 1)]
    assert all("Asked to launch executor" in log for log in workers)
    assert project.leftovers() == []


def _processes_in(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(folder)):
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found
