"""Where Horovod cannot be built: one rank trains and everyone is told; two ranks are refused at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.scenarios.conftest import ROOT, Project

pytestmark = [pytest.mark.slow, pytest.mark.spark, pytest.mark.horovod]

HIDE = '''
"""On the path of a test alone: this environment looks as if Horovod had never been built."""
import importlib.metadata, sys

sys.modules["horovod"] = None
_distribution = importlib.metadata.distribution

def distribution(name):
    if name == "horovod":
        raise importlib.metadata.PackageNotFoundError(name)
    return _distribution(name)

importlib.metadata.distribution = distribution
'''


@pytest.fixture
def hidden(tmp_path: Path, server: str) -> dict[str, str]:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    return {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PREFECT_API_URL": server}


def test_two_ranks_are_refused_before_anything_starts(project: Project, hidden: dict[str, str]) -> None:
    outcome = project.run("flows.retrain", "--keras.ranks", "2", **hidden)
    assert outcome.code == 5, outcome.err
    assert "2 ranks cannot train together here" in outcome.err
    assert "make setup" in outcome.err
    assert "Traceback" not in outcome.err
    assert not list(project.home.glob("runs/*/nodes.jsonl"))


@pytest.mark.long
def test_one_rank_trains_and_table_report_and_record_say_so(project: Project, hidden: dict[str, str]) -> None:
    small = ["--source", "sklearn:wine", "--keras.epochs", "2", "--xgboost.trees", "5"]
    outcome = project.run("flows.retrain", *small, **hidden)
    assert outcome.code == 0, outcome.err
    assert "Keras was trained by one rank, not distributed" in outcome.out
    record = json.loads(Path(outcome.out.split("record")[1].split()[0]).read_text())
    trained = next(node for node in record["nodes"] if node["node"] == "train_keras")
    assert trained["resources"]["job"]["ranks"] == 1
    report = next(node for node in record["nodes"] if node["node"] == "report_retrain")
    assert "one rank" in report["output"]["notes"][0]
