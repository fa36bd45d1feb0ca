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

from tests.scenarios.conftest import AS_SHIPPED, ROOT, Project

pytestmark = [pytest.mark.slow, pytest.mark.spark, pytest.mark.horovod]

SPOILED = {
    "xgboost": ("--xgboost.trees", "train_xgboost", "measure_model-2"),
    "keras": ("--keras.epochs", "train_keras", "measure_model"),
}
"""By family: the option that makes a worse model of it with 1, and the two tasks that follow."""


@pytest.fixture(scope="module")
def first(project: Project) -> Any:
    """On a server of its own, with the placement that a user has."""
    outcome = project.run("flows.retrain", "--json", **AS_SHIPPED)
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


def test_mlflow_holds_what_explains_the_champion(first: Any, project: Project) -> None:
    """On its own run: card, what it looks at, its worst rows; the card is its version's description."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.home / 'mlflow.db'}")
    champion = client.get_model_version(first["champion"]["name"], str(first["champion"]["version"]))
    files = {file.path: file.file_size for file in client.list_artifacts(champion.run_id)}
    assert {"model_card.md", "importance_of_columns.png", "importance_of_columns.json"} <= files.keys()
    assert any(name.startswith("worst_rows_holdout") for name in files)
    assert all(size > 100 for name, size in files.items() if name.endswith((".png", ".md")))
    assert champion.description.startswith("# ")
    assert "holdout" in champion.description
    parent = client.get_parent_run(champion.run_id)
    assert {"profile.md", "profile.png"} <= {file.path for file in client.list_artifacts(parent.info.run_id)}


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


def _newest_record(project: Project) -> dict[str, Any]:
    newest = max((project.home / "runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    return dict(json.loads(newest.read_text()))


def _changed(verdicts: list[dict[str, Any]]) -> dict[str, str]:
    """Verdicts of a plan by task, without those of the cached."""
    return {node["name"]: node["verdict"] for node in verdicts if node["verdict"] != "cached"}


def _executed(record: dict[str, Any]) -> set[str]:
    return {node["node"] for node in record["nodes"] if node["state"] == "completed"}


@pytest.fixture(scope="module")
def settled(first: Any, project: Project, server: str) -> dict[str, Any]:
    """Record of the run after the promotion: the champion is known to every later plan."""
    again = project.run("flows.retrain", "--json", PREFECT_API_URL=server)
    assert again.code == 0, again.err
    assert "nothing better was trained since its promotion" in again.json["verdict"]["reason"]
    return _newest_record(project)


def test_the_plan_after_a_promotion_re_evaluates_and_nothing_else(settled: dict[str, Any]) -> None:
    """The promotion moved one input of the next plan: the champion."""
    evaluation = {"find_champion", "measure_champion", "judge", "write_card", "promote", "report_retrain"}
    verdicts = _changed(settled["plan"]["nodes"])
    assert set(verdicts) == {*evaluation, "score_table"}
    assert verdicts["find_champion"] == "run"
    assert verdicts["score_table"] == "maybe"
    assert _executed(settled) == evaluation, "the champion stayed, so its scores are cut off early"


def test_the_plan_after_that_is_all_cached_and_needs_no_spark_and_no_rank(
    settled: dict[str, Any], project: Project, server: str
) -> None:
    planned = project.run("flows.retrain", "plan", "--json")
    assert planned.code == 0, planned.err
    assert _changed(planned.json["nodes"]) == {}
    again = project.run("flows.retrain", "--json", PREFECT_API_URL=server)
    assert again.code == 0, again.err
    record = _newest_record(project)
    assert _executed(record) == set()
    folder = project.home / "runs" / record["run"]
    assert {path.name for path in folder.iterdir()} == {"run.json", "nodes.jsonl"}, "no log of Spark or ranks"


def test_a_run_that_is_resumed_after_it_promoted_still_says_so(
    settled: dict[str, Any], project: Project, server: str
) -> None:
    """It does not judge its challenger against itself, and has nothing to do."""
    records = [json.loads(path.read_text()) for path in (project.home / "runs").glob("*/run.json")]
    run = min(records, key=lambda record: str(record["started"]))["run"]
    again = project.run("flows.retrain", "resume", run, "--json", PREFECT_API_URL=server)
    assert again.code == 0, again.err
    assert again.json["verdict"]["decision"] == "promote"
    assert _executed(_newest_record(project)) == set()


@pytest.mark.long
def test_one_hyper_parameter_runs_its_branch_alone_and_a_worse_challenger_is_held(
    first: Any, settled: dict[str, Any], project: Project, server: str
) -> None:
    """The family that won is spoiled, so the other one is the challenger, or a worse model of the same.

    Where a promotion is required, that ends with 4, after everything else was done and said.
    """
    option, trains, measures = SPOILED[first["champion"]["family"]]
    worse = project.run("flows.retrain", option, "1", "--require-promotion", PREFECT_API_URL=server)
    assert worse.code == 4, worse.err
    assert "PromotionError: a promotion is required, and the challenger was not promoted" in worse.err
    assert "got: hold: " in worse.err or "got: reject: " in worse.err
    assert "try: " in worse.err
    record = _newest_record(project)
    branch = {trains, measures, "choose_challenger", "measure_model-3", "explain_model"}
    branch |= {"find_champion", "judge", "write_card", "promote"}
    verdicts = _changed(record["plan"]["nodes"])
    assert set(verdicts) == {*branch, "measure_champion", "score_table", "report_retrain"}
    assert verdicts[trains] == "run"
    assert _executed(record) == branch, "the champion stayed, so its scores are cut off early"

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.home / 'mlflow.db'}")
    assert client.get_model_version_by_alias("digits", "champion").version == 1
    challenger = client.get_model_version_by_alias("digits", "challenger")
    assert challenger.version == 2
    assert challenger.tags["gate.decision"] in ("hold", "reject")
