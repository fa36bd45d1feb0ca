"""The main job as it is declared: what its plan says before anything has run."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from flows.retrain import retrain
from flows.tune import tune
from ml_platform.cli.dag_command import main
from ml_platform.specs.references import Family
from ml_platform.specs.tables import FeatureSpec, SplitSpec

pytestmark = pytest.mark.slow


def test_every_task_can_be_cached_and_no_key_is_coarse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value without an identity, in whatever a task reaches, would train it anew every night."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    plan = retrain.plan(families=get_args(Family))
    assert {decision.name: decision.uncacheable for decision in plan.nodes if decision.uncacheable} == {}
    assert plan.notes == ()


def test_what_keeps_rows_apart_is_no_feature_of_any_model() -> None:
    for flow in (retrain, tune):
        graph = flow.graph(split=SplitSpec(group="patient"), features=FeatureSpec(drop=("zip",)))
        (fitting,) = (node for node in graph.nodes if node.name == "fit_features")
        assert fitting.arguments["spec"].drop == ("zip", "patient")


def test_new_rows_need_no_group_but_a_key_that_is_written_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    table = {"patient": [1, 2], "size": [1.5, 2.5], "label": ["x", "y"]}
    parquet.write_table(pa.table(table), tmp_path / "old.parquet")
    parquet.write_table(pa.table({"size": [1.0]}), tmp_path / "new.parquet")
    asked = ["--source", str(tmp_path / "old.parquet"), "--score", str(tmp_path / "new.parquet")]
    assert main(retrain, ["plan", *asked, "--split.group", "patient"]) == 0
    assert main(retrain, ["plan", *asked, "--split.key-columns", "patient"]) == 3
    assert "wanted: column 'patient'" in capfd.readouterr().err


@pytest.mark.parametrize(("suffix", "column"), [("parquet", "size"), ("csv", "declared")])
def test_a_treatment_that_does_not_fit_is_refused_before_anything_starts(
    tmp_path: Path, suffix: str, column: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """As far as types are known: from the file, or because a person has declared them."""
    table = pa.table({"size": [1.5, 2.5], "declared": [1, 2], "label": ["x", "y"]})
    source, schema = tmp_path / f"t.{suffix}", tmp_path / "t.yaml"
    (parquet.write_table if suffix == "parquet" else csv.write_csv)(table, source)
    schema.write_text("columns:\n  declared: integer\n")
    options = ["--source", str(source), "--schema", str(schema), f"--features.columns.{column}.treat", "text"]
    assert main(retrain, ["plan", *options]) == 2
    assert f"column '{column}' cannot be treated as text" in capfd.readouterr().err
