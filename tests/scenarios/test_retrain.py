"""The main job as a user runs it: real digits, Spark, ranks, MLflow and Prefect; then a worse second run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.scenarios.conftest import ROOT, Project

pytestmark = [pytest.mark.slow, pytest.mark.spark, pytest.mark.horovod]


@pytest.fixture(scope="module")
def first(project: Project) -> Any:
    outcome = project.run("flows.retrain", "--json")
    assert outcome.code == 0, outcome.err
    return outcome.json


def test_both_families_are_trained_and_the_better_one_serves(first: Any) -> None:
    """Real handwritten digits: 0.95 accuracy on rows that no training or choice has seen."""
    families = {(model["family"], model["part"]) for model in first["models"]}
    assert {("keras", "validation"), ("xgboost", "validation")} <= families
    assert first["verdict"]["decision"] == "promote"
    assert first["champion"]["version"] == 1
    accuracy = first["champion"]["metrics"]["accuracy"]
    assert accuracy["value"] >= 0.95
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert next(m["ranks"] for m in first["models"] if m["family"] == "keras") == 2
    assert first["quarantined"] == 0


def test_predictions_keep_the_rows_and_name_classes_and_version(first: Any) -> None:
    from sklearn.datasets import load_digits

    scored = pq.read_table(first["predictions"]["uri"].removeprefix("file://"))
    assert scored.num_rows == first["predictions"]["rows"] == 1797
    assert set(scored.column("prediction").to_pylist()) == {str(digit) for digit in range(10)}
    assert set(scored.column("model_version").to_pylist()) == {1}
    right = np.array(scored.column("prediction").to_pylist()) == np.array(
        scored.column("label").to_pylist()
    ).astype(str)
    assert right.mean() > 0.97
    assert scored.num_columns >= load_digits().data.shape[1]


def test_mlflow_holds_the_run_tree(first: Any, project: Project) -> None:
    """One run per flow run, one per model; parameters, curves, inputs, pictures, proof, model."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("retrain")
    runs = client.search_runs([experiment.experiment_id])
    parent = next(run for run in runs if run.info.run_name == first["run"])
    nested = {r.info.run_name: r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
    assert set(nested) == {"train_keras", "train_xgboost"}
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["prefect.flow_run_id"]

    keras = nested["train_keras"]
    assert keras.data.tags["proof.ranks"] == "2"
    assert len(keras.data.tags["proof.digest"]) == 64
    assert keras.data.params["keras.batch_rows"]
    assert len(client.get_metric_history(keras.info.run_id, "val_loss")) >= 3
    rounds = client.get_metric_history(nested["train_xgboost"].info.run_id, "validation-mlogloss")
    assert len(rounds) >= 10
    assert {i.dataset.name for i in client.get_run(keras.info.run_id).inputs.dataset_inputs}
    for run in nested.values():
        pictures = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {"learning_curves.png", "confusion_matrix_validation.png"} <= pictures
        own = {"speed.png", "launch_plan.txt"} if run is keras else {"importance.png", "importance.json"}
        assert own <= pictures
    assert keras.data.metrics["seconds.allreduce"] > 0


def test_the_model_scores_raw_rows_in_a_bare_process(first: Any, project: Project, tmp_path: Path) -> None:
    """No project on the path, no Spark, no Prefect: MLflow alone, and the same numbers as Spark gave."""
    scored = pq.read_table(first["predictions"]["uri"].removeprefix("file://"))
    rows = scored.drop_columns(
        ["prediction", "probability", "probabilities", "error", "model_name", "model_version"]
    )
    pq.write_table(rows, tmp_path / "rows.parquet")
    script = """
import sys
sys.path = [entry for entry in sys.path if entry != sys.argv[4]]
import json, mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
found = model.predict(pd.read_parquet(sys.argv[2]))
import ml_platform
assert not ml_platform.__path__[0].startswith(sys.argv[4]), "the code that travels with the model"
import psutil
assert "prefect" not in sys.modules and not psutil.Process().children(), "no Spark was started"
print(json.dumps([sorted(p.items()) for p in found["probabilities"]]), file=open(sys.argv[3], "w"))
"""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.home / 'mlflow.db'}"
    command = [
        sys.executable,
        "-c",
        script,
        first["champion"]["uri"],
        str(tmp_path / "rows.parquet"),
        str(tmp_path / "out.json"),
        str(ROOT),
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    alone = np.array([[p for _, p in row] for row in json.loads((tmp_path / "out.json").read_text())])
    on_spark = np.array([[p for _, p in sorted(row)] for row in scored.column("probabilities").to_pylist()])
    np.testing.assert_allclose(alone, on_spark, atol=1e-5)


def test_nothing_is_left_running(first: Any, project: Project) -> None:
    assert project.leftovers() == []


def _verdicts(project: Project, *options: str) -> dict[str, str]:
    planned = project.run("flows.retrain", "plan", "--json", *options)
    assert planned.code == 0, planned.err
    return {node["name"]: node["verdict"] for node in planned.json["nodes"]}


def _ran(project: Project, *options: str) -> tuple[set[str], dict[str, Any]]:
    """Run the job; which tasks really ran, and the record."""
    done = project.run("flows.retrain", "--json", *options)
    assert done.code == 0, done.err
    newest = max((project.home / "runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    record = json.loads(newest.read_text())
    return {node["node"] for node in record["nodes"] if node["state"] == "completed"}, record


def test_the_plan_after_a_promotion_re_evaluates_and_nothing_else(first: Any, project: Project) -> None:
    """The promotion moved one input of the next plan: the champion."""
    verdicts = _verdicts(project)
    evaluation = {"find_champion", "measure_champion", "judge", "promote", "report_retrain"}
    assert {name for name, verdict in verdicts.items() if verdict != "cached"} == {*evaluation, "score_table"}
    assert verdicts["find_champion"] == "run"
    assert verdicts["score_table"] == "maybe"
    ran, _ = _ran(project)
    assert ran == evaluation, "the champion stayed, so its scores are cut off early"


def test_the_plan_after_that_is_all_cached_and_needs_no_spark_and_no_rank(
    first: Any, project: Project
) -> None:
    assert set(_verdicts(project).values()) == {"cached"}
    ran, record = _ran(project)
    assert ran == set()
    folder = project.home / "runs" / record["run"]
    assert {path.name for path in folder.iterdir()} == {"run.json", "nodes.jsonl"}, "no log of Spark or ranks"


def test_one_hyper_parameter_of_one_model_runs_its_branch_alone(first: Any, project: Project) -> None:
    verdicts = _verdicts(project, "--xgboost.trees", "1")
    branch = {"train_xgboost", "measure_model-2", "choose_challenger", "measure_model-3", "judge", "promote"}
    assert {name for name, verdict in verdicts.items() if verdict != "cached"} == {
        *branch,
        "score_table",
        "report_retrain",
    }
    assert verdicts["train_xgboost"] == "run"
    ran, _ = _ran(project, "--xgboost.trees", "1", "--until", "choose_challenger")
    assert ran == {"train_xgboost", "measure_model-2", "choose_challenger"}


def test_a_worse_challenger_is_held_and_the_alias_stays(first: Any, project: Project) -> None:
    second = project.run("flows.retrain", "--keras.epochs", "1", "--xgboost.trees", "1")
    assert second.code == 0, second.err
    assert "verdict" in second.out
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.home / 'mlflow.db'}")
    assert client.get_model_version_by_alias("digits", "champion").version == 1
    worse = client.get_model_version_by_alias("digits", "challenger")
    assert worse.version == 2
    assert worse.tags["gate.decision"] in ("hold", "reject")
    assert f"models:/digits/{first['champion']['version']}" in second.out
