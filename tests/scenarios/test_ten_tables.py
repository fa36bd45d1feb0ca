"""Ten tables that nobody prepared go through the command, and each result is one that a person can use."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from flows.retrain import retrain
from ml_platform.cli.dag_command import main
from ml_platform.store.records import read_run, run_names
from tests.scenarios.conftest import Project
from tests.scenarios.ten_tables import CASES, Case

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.spark, pytest.mark.horovod]


def _run(project: Project, server: str, arguments: list[str]) -> dict[str, Any]:
    """The command in this process, on its Spark session: the output of each task, as the record has it."""
    settings = {PREFECT_API_URL: server, PREFECT_LOGGING_TO_API_ENABLED: False}
    with pytest.MonkeyPatch.context() as patch, temporary_settings(updates=settings):
        patch.setenv("ML_PLATFORM_HOME", str(project.home))
        assert main(retrain, arguments) == 0
        record = read_run(run_names()[0])
    return {node["node"]: node["output"] for node in record["nodes"]}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_table_goes_through_unattended_with_a_sensible_result(
    case: Case, project: Project, server: str, spark: SparkSession, tmp_path: Path
) -> None:
    """Its problem is found, classes keep their names, rows are dealt, judged and scored, and the card says
    what was found."""
    where = ["--label", case.label, "--families", *case.families, "--predictions", str(tmp_path / "scored")]
    outputs = _run(project, server, [*case.write(tmp_path), *where, *case.arguments])
    report, card = outputs["report_retrain"], outputs["write_card"]
    assert report["problem"]["kind"] == case.problem
    assert (report["verdict"]["decision"], report["quarantined"]) == (case.decision, case.quarantined)
    holdout = next(each for each in report["models"] if each["part"] == "holdout")
    name, least = case.metric
    metric = holdout["metrics"][name]
    assert metric["value"] >= least
    assert metric["low"] <= metric["value"] <= metric["high"]
    assert report["split"]
    said = "\n".join([str(card), *report["notes"]])
    assert [part for part in (*case.classes, *case.says) if part not in said] == []
    if case.decision == "promote":
        _check_predictions(case, report["predictions"], tmp_path / "scored")


def _check_predictions(case: Case, predictions: dict[str, Any], folder: Path) -> None:
    scored = pq.read_table(folder)
    assert scored.num_rows == predictions["rows"] == (case.scored or predictions["rows"])
    assert set(scored["error"].to_pylist()) == {None}
    answers = scored["prediction"].to_pylist()
    if case.problem == "regression":
        assert all(math.isfinite(answer) for answer in answers)
    else:
        assert set(case.classes) <= set(answers)
