"""Batch inference as a flow: models of others, from files to predictions or to an exit code."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from pyarrow import csv

from flows.batch_inference import batch_inference
from ml_platform.cli.dag_command import main
from tests.inference.models_of_others import OTHERS, ROWS, features, table

pytestmark = [pytest.mark.slow, pytest.mark.spark, pytest.mark.horovod, pytest.mark.usefixtures("spark")]
"""TensorFlow is imported."""


@pytest.fixture(autouse=True)
def home(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    with temporary_settings(updates={PREFECT_API_URL: server, PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield


@pytest.fixture
def source(tmp_path: Path) -> str:
    pq.write_table(table(), tmp_path / "rows.parquet")
    return str(tmp_path / "rows.parquet")


@pytest.mark.parametrize("kind", ["keras", "saved_model"])
def test_a_file_of_a_network_is_a_model_by_its_path_or_uri(kind: str, source: str, tmp_path: Path) -> None:
    """A .keras file by its path, a SavedModel's folder by its URI."""
    other = OTHERS[kind](tmp_path)
    model = str(other.path) if kind == "keras" else other.path.as_uri()
    scores = tmp_path / "scores"
    report = batch_inference(model=model, source=source, keys=("id",), predictions=str(scores))
    assert (report.predictions.rows, report.predictions.failed_rows) == (ROWS, 0)
    rows = pq.read_table(scores).sort_by("id")
    np.testing.assert_allclose(rows.column("prediction").to_pylist(), other.expected, atol=1e-5)


def test_every_task_can_be_cached_and_no_key_is_coarse(source: str, tmp_path: Path) -> None:
    plan = batch_inference.plan(model=str(OTHERS["xgboost"](tmp_path).path), source=source)
    assert {decision.name: decision.uncacheable for decision in plan.nodes if decision.uncacheable} == {}
    assert plan.notes == ()


def test_hourly_predictions_are_not_written_over_those_of_a_retrain(source: str, tmp_path: Path) -> None:
    """Else each would make what the other has stored stale, for ever."""
    report = batch_inference(model=str(OTHERS["xgboost"](tmp_path).path), source=source, keys=("id",))
    written = report.predictions.uri
    assert written.startswith((tmp_path / "home" / "predictions").as_uri())
    assert written.endswith("-batch")


def test_a_report_of_equal_predictions_elsewhere_is_not_taken_for_theirs(source: str, tmp_path: Path) -> None:
    model, folders = str(OTHERS["xgboost"](tmp_path).path), (None, str(tmp_path / "mine"))
    asked = [(folder, day) for folder in folders for day in (None, "2026-11-27", "2026-11-28")]
    told = [
        batch_inference(
            model=model, source=source, keys=("id",), predictions=(folder and f"{folder}{day}"), day=day
        ).predictions.uri
        for folder, day in asked
    ]
    assert len(set(told)) == len(asked)


def test_a_record_that_cannot_be_read_is_an_error_for_a_model_of_others_too(tmp_path: Path) -> None:
    """What its columns are need not be known for that."""
    csv.write_csv(table(), tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("300,1.5\n")
    model, scores = OTHERS["xgboost"](tmp_path).path, tmp_path / "scores"
    report = batch_inference(
        model=str(model), source=str(tmp_path / "rows.csv"), keys=("id",), predictions=str(scores)
    )
    assert (report.predictions.rows, report.predictions.failed_rows) == (ROWS + 1, 1)
    rows = pq.read_table(scores)
    (bad,) = [row for row in rows.to_pylist() if row["error"] is not None]
    assert (bad["id"], bad["prediction"]) == (300, None)
    assert bad["error"] == "a record of other than 5 fields: 300,1.5"
    assert rows.column_names == ["id", "prediction", "error", "model_name", "model_version"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--keys", "idd"], "no key column 'idd' in the table try: did you mean 'id'?"),
        (["--columns", "x0", "x11"], "has no column 'x11' try: did you mean 'x1'?"),
        (["--signature", "serve_default"], "exported has no signature 'serve_default'"),
    ],
)
def test_a_misspelt_name_is_found_before_anything_starts(
    options: list[str],
    said: str,
    source: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    OTHERS["saved_model"](tmp_path)
    assert main(batch_inference, ["--model", "exported", "--source", source, *options]) == 2
    err = " ".join(capfd.readouterr().err.split())
    assert said in err
    assert "running" not in err


@pytest.mark.parametrize("fault", ["shape", "columns"])
def test_what_does_not_fit_a_model_of_others_ends_the_command(
    fault: str, source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Columns that make no such shape: 3. A model that does not name its columns, nor does the caller: 2."""
    model, options, code = OTHERS["saved_model"](tmp_path).path, ["--keys", "id"], 3
    if fault == "shape":
        said, options = "wanted: 4 numbers a row, for shape (4,)", ["--columns", "x0", "x1", "x2"]
    else:
        from sklearn.linear_model import LinearRegression

        said, code, options = "it has no signature", 2, ["--trust-pickle"]
        model = tmp_path / "bare.pkl"
        model.write_bytes(pickle.dumps(LinearRegression().fit(features(), features()[:, 0])))
    scores = tmp_path / "scores"
    arguments = ["--model", str(model), "--source", source, "--predictions", str(scores), *options]
    assert main(batch_inference, arguments) == code
    out, err = capfd.readouterr()
    assert said in " ".join(err.split())
    assert ("Traceback" in err, out, scores.exists()) == (False, "", False)
