"""Early cutoff across Spark and training: what comes out the same stops what follows, whatever made it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.scenarios.conftest import QUICK, ROOT

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.spark]

QUICK_SPARK = Path(QUICK["ML_PLATFORM_PLACEMENTS"], "local.yaml").read_text()

DAG = """
from ml_platform import Dataset, FeatureSpec, FeatureState, SplitSpec, dag, task
from tasks.data import apply_features, find_problem, fit_features, load_table, split_table

@task
def train(part: Dataset, state: FeatureState) -> int:
    return part.rows

@dag
def trained(source: str) -> int:
    table = load_table(source, "label")
    problem = find_problem(table, "auto")
    parts = split_table(table.data, SplitSpec(), problem)
    state = fit_features(parts.train, FeatureSpec(), problem)
    return train(apply_features(parts.train, state), state)

if __name__ == "__main__":
    trained.cli()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trained.py").write_text(DAG)
    places = tmp_path / "places"
    places.mkdir()
    for cores in (1, 2):
        (places / f"cores-{cores}.yaml").write_text(
            f"{QUICK_SPARK}  master: local[{cores}]\n  driver_memory_mib: 1024\n"
        )
    rows = [
        {"id": i, "size": (i * 37 % 101) / 7, "kind": "abc"[i % 3], "label": "yn"[i % 2]} for i in range(400)
    ]
    (tmp_path / "table").mkdir()
    for part in range(2):
        parquet.write_table(pa.Table.from_pylist(rows[part::2]), tmp_path / "table" / f"{part}.parquet")
    return tmp_path


def _states(folder: Path, server: str, *options: str) -> dict[str, str]:
    """Run the dag; what became of each task."""
    environment = {
        **os.environ,
        "PREFECT_API_URL": server,
        "PYTHONPATH": f"{folder}:{ROOT}",
        "ML_PLATFORM_HOME": str(folder / "home"),
        "ML_PLATFORM_PLACEMENTS": str(folder / "places"),
    }
    command = [sys.executable, "-m", "trained", "--source", str(folder / "table"), *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    newest = max((folder / "home" / "runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    return {node["node"]: node["state"] for node in json.loads(newest.read_text())["nodes"]}


def test_equal_outputs_cut_off_what_follows(folder: Path, server: str) -> None:
    """On one core and on two, and with an empty file more: the same rows, so the same split and features."""
    assert set(_states(folder, server, "--placement", "cores-1").values()) == {"completed"}

    spark = ["load_table", "find_problem", "split_table", "fit_features", "apply_features"]
    again = _states(folder, server, "--placement", "cores-2", *(f"--force={name}" for name in spark))
    assert again == {**dict.fromkeys(spark, "completed"), "train": "cached"}

    part = parquet.read_table(folder / "table" / "0.parquet")
    parquet.write_table(part.slice(0, 0), folder / "table" / "2.parquet")
    more = _states(folder, server, "--placement", "cores-2")
    assert more == {"load_table": "completed", **dict.fromkeys([*spark[1:], "train"], "cached")}
