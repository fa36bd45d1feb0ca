"""The main job on a real cluster by placement alone: the same flow and command, other values in a file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ml_platform.resources.placement import load_placement
from tests.clusters import QUICK_JAVA, standalone_cluster
from tests.inference.models_of_others import ROWS
from tests.scenarios.conftest import ROOT, Project

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


ON_EXECUTORS = """
import json, sys
from pathlib import Path

import pandas as pd
from ml_platform.inference.any_model import Asking, predict_table
from ml_platform.inference.flavours import recognise
from ml_platform.inference.score import Output
from ml_platform.resources.spark import open_session
from ml_platform.specs.placements import SparkPlacement
from tests.inference.models_of_others import NAMES, features, pyfunc

def where(number):
    import psutil
    from ml_platform.resources.budget import usable_cores
    return sys.prefix, sys.executable, psutil.__file__, psutil.Process().exe(), usable_cores.__module__

folder = Path(sys.argv[2])
other = pyfunc(folder)
with open_session(SparkPlacement.model_validate_json(sys.argv[1]), log_folder=folder) as spark:
    places = spark.sparkContext.parallelize(range(2), 2).map(where).collect()
    rows = spark.createDataFrame(pd.DataFrame(features().astype("float64"), columns=list(NAMES)))
    model = recognise(other.path, str(other.path))
    predict_table(
        spark, model, rows, asking=Asking(trust_pickle=True), output=Output(str(folder / "predictions"))
    )
found = pd.read_parquet(folder / "predictions")
wrong = abs(found["prediction"] - found[list(NAMES)].sum(axis=1)) > 1e-9
print(json.dumps([places, len(found), int(wrong.sum()), int(found["error"].count())]))
"""


def test_executors_run_the_packed_environment(cluster: Path, tmp_path: Path) -> None:
    """Its interpreter, its library, its packages; and the project, which is not in it, comes with the run.
    Any model of MLflow's scores there."""
    archive = tmp_path / "environment.tar.gz"
    pack = [sys.executable, str(ROOT / "scripts" / "pack.py"), "--output", str(archive)]
    packages = ["psutil", "pydantic", "pandas", "pyarrow", "mlflow-skinny"]
    subprocess.run([*pack, "--only", *packages], check=True, capture_output=True)
    shipped = json.loads((cluster / "placements" / "cluster.yaml").read_text())["spark"]
    words = [json.dumps({**shipped, "environment": str(archive)}), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ML_PLATFORM_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", ON_EXECUTORS, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    places, rows, wrong, errors = json.loads(done.stdout)
    assert (rows, wrong, errors) == (ROWS, 0, 0)
    for *paths, module in places:
        assert all(re.fullmatch(rf"{cluster}/worker-\d/.*/environment(/.*)?", path) for path in paths)
        assert module == "ml_platform.resources.budget"


def _processes_in(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(folder)):
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found
