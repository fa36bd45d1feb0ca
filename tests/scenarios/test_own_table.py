"""A user's own CSV: text, gaps and a key column; then an unlabelled file scored with the champion."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from flows.batch_inference import batch_inference
from flows.retrain import retrain
from ml_platform.cli.dag_command import main
from ml_platform.engine import Dag
from ml_platform.store.datasets import read_table
from ml_platform.store.manifest import open_dataset
from ml_platform.store.records import read_run, run_names
from tests.scenarios.conftest import Project

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.slow, pytest.mark.spark, pytest.mark.horovod]

SMALL = ["--keras.epochs", "4", "--keras.hidden", "16", "--xgboost.trees", "15"]


def _line(random_: random.Random, customer: int) -> tuple[str, str]:
    plan = random_.choice(["basic", "plus", "pro"])
    visits = random_.randint(0, 40)
    spend = "" if random_.random() < 0.1 else f"{random_.gauss(50, 20):.2f}"
    stays = visits > 18 or plan == "pro"
    if random_.random() < 0.05:
        stays = not stays
    return f"c{customer:05},{plan},{visits},{spend}", "no" if stays else "yes"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    random_, folder = random.Random(3), tmp_path_factory.mktemp("my tables")
    labelled, new = folder / "churn 2026.csv", folder / "new.csv"
    rows = [_line(random_, i) for i in range(900)]
    gaps = [f"{line}," for line, _ in rows[:3]]
    lines = [*(f"{line},{label}" for line, label in rows[3:]), *gaps]
    labelled.write_text("\n".join(["customer,plan,visits,spend,churned", *lines]))
    unseen = ["n1,basic,3,10.5", "n2,platinum,30,", "n3,pro,1,99"]
    new.write_text("\n".join(["customer,plan,visits,spend", *unseen]))
    return labelled, new


def _run(project: Project, server: str, flow: Dag[..., Any], *arguments: str) -> dict[str, Any]:
    """The command in this process, on its Spark session: the output of each task, as the record has it."""
    settings = {PREFECT_API_URL: server, PREFECT_LOGGING_TO_API_ENABLED: False}
    with pytest.MonkeyPatch.context() as patch, temporary_settings(updates=settings):
        patch.setenv("ML_PLATFORM_HOME", str(project.home))
        assert main(flow, arguments) == 0
        record = read_run(run_names()[0])
    return {node["node"]: node["output"] for node in record["nodes"]}


@pytest.fixture(scope="module")
def trained(
    project: Project,
    tables: tuple[Path, Path],
    server: str,
    spark: SparkSession,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    destination = tmp_path_factory.mktemp("out") / "scored"
    options = ["--split.key-columns", "customer", "--model", "churn"]
    options += ["--source", str(tables[0]), "--label", "churned", "--predictions", str(destination)]
    return _run(project, server, retrain, *options, *SMALL)["report_retrain"]


def test_the_key_column_is_kept_beside_named_classes(trained: Any) -> None:
    scored = pq.read_table(trained["predictions"]["uri"].removeprefix("file://"))
    assert scored.column_names[0] == "customer"
    assert "visits" not in scored.column_names
    assert set(scored.column("prediction").to_pylist()) == {"yes", "no"}
    assert trained["verdict"]["decision"] == "promote"
    assert trained["champion"]["metrics"]["accuracy"]["value"] > 0.75


def test_rows_without_a_label_are_set_aside_and_counted(trained: Any) -> None:
    assert trained["quarantined"] == 3
    said = trained["links"]["quarantined"]
    assert said.startswith("3 rows, a reason beside each: file://")
    assert len(read_table(open_dataset(said.rpartition(" ")[2]))) == 3
    assert trained["predictions"]["rows"] == 897


def test_an_unlabelled_table_is_scored_with_the_champion(
    trained: Any,
    project: Project,
    tables: tuple[Path, Path],
    server: str,
    spark: SparkSession,
    tmp_path: Path,
) -> None:
    """An unknown plan and an empty cell are no errors; every row gets the version that scored it."""
    arguments = ["--model", "models:/churn@champion", "--source", str(tables[1]), "--keys", "customer"]
    outputs = _run(
        project, server, batch_inference, *arguments, "--predictions", str(tmp_path / "new scores")
    )
    assert outputs["batch_predict"]["rows"] == 3
    scored = pq.read_table(tmp_path / "new scores").to_pylist()
    by_customer = {row["customer"]: row for row in scored}
    assert set(by_customer) == {"n1", "n2", "n3"}
    assert by_customer["n1"]["prediction"] == "yes"
    assert by_customer["n3"]["prediction"] == "no"
    assert {row["error"] for row in scored} == {None}
    assert {row["model_version"] for row in scored} == {1}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_bad_cell_of_a_table_to_score_is_the_error_of_its_row(
    trained: Any, project: Project, server: str, spark: SparkSession, tmp_path: Path, kind: str
) -> None:
    """The model knows that visits are numbers; it need not be found out from a table where one is none."""
    cells = [(f"n{at}", "basic", "many" if at == 5 else at, 10.5) for at in range(40)]
    names = ("customer", "plan", "visits", "spend")
    lines = [",".join(names), *(",".join(map(str, row)) for row in cells)]
    if kind == "jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in cells]
    source = tmp_path / f"new.{kind}"
    source.write_text("\n".join(lines))
    arguments = ["--model", "models:/churn@champion", "--source", str(source), "--keys", "customer"]
    outputs = _run(project, server, batch_inference, *arguments, "--predictions", str(tmp_path / "scores"))
    assert (outputs["batch_predict"]["rows"], outputs["batch_predict"]["failed_rows"]) == (40, 1)
    by_customer = {row["customer"]: row for row in pq.read_table(tmp_path / "scores").to_pylist()}
    assert by_customer["n5"]["error"] == "column 'visits' is no whole number: many"
    assert [name for name, row in by_customer.items() if row["prediction"] is None] == ["n5"]


def test_a_champion_that_cannot_read_the_table_any_more_stays_and_the_columns_are_named(
    trained: Any,
    project: Project,
    tables: tuple[Path, Path],
    server: str,
    spark: SparkSession,
    tmp_path: Path,
) -> None:
    """The table has lost its visits, and spending is a word. The run goes on, and nothing is scored."""
    header, *lines = (line.split(",") for line in tables[0].read_text().splitlines())
    rows = [[*row[:2], "much" if len(row[3]) > 4 else "little", row[4]] for row in lines]
    source = tmp_path / "lost.csv"
    source.write_text("\n".join(",".join(row) for row in ([*header[:2], *header[3:]], *rows)))
    options = ["--split.key-columns", "customer", "--model", "churn", "--families", "sklearn"]
    report = _run(project, server, retrain, "--source", str(source), "--label", "churned", *options)
    verdict = report["report_retrain"]["verdict"]
    assert verdict["decision"] == "not comparable"
    lost, retyped = (line.split() for line in verdict["evidence"].splitlines()[1:3])
    assert [lost[0], lost[-1]] == ["visits", "name"]
    assert retyped == ["spend", "float", "string"]
    assert report["promote"]["version"] == 1
    assert any("Nothing was scored: models:/churn/1" in note for note in report["report_retrain"]["notes"])


@pytest.mark.long
def test_equal_rows_from_elsewhere_are_learnt_once_and_reported_anew(
    project: Project, tables: tuple[Path, Path], server: str, spark: SparkSession, tmp_path: Path
) -> None:
    """A report names where the table lay: that of the run before would name another place."""
    elsewhere = tmp_path / "copy.csv"
    elsewhere.write_bytes(tables[0].read_bytes())
    options = [
        "--label",
        "churned",
        "--model",
        "twice",
        "--families",
        "sklearn",
        "--gate.minimum-rows",
        "999",
    ]
    first, moved, again = (
        _run(project, server, retrain, "--source", str(source), *options)
        for source in (tables[0], elsewhere, elsewhere)
    )
    assert first["train_sklearn"] == moved["train_sklearn"]
    runs = [each["report_retrain"]["run"] for each in (first, moved, again)]
    assert runs[0] != runs[1] == runs[2]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("customer,plan,visit,spend", "nothing; did you mean 'visit'?"),
        ("customer,plan,spend", "nothing; no column of a similar name"),
    ],
)
def test_a_table_without_a_column_is_refused_with_a_diff_before_anything_starts(
    trained: Any,
    project: Project,
    tmp_path: Path,
    header: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(project.home))
    (tmp_path / "new.csv").write_text(f"{header}\nn1,basic,3,10.5\n")
    arguments = ["plan", "--model", "models:/churn@champion", "--source", str(tmp_path / "new.csv")]
    assert main(batch_inference, arguments) == 3
    err = capfd.readouterr().err
    assert "the table does not fit models:/churn/1: 1 of 3 columns" in err
    assert said in err
    assert main(batch_inference, ["plan", "--model", "models:/churn/9", "--source", "sklearn:wine"]) == 2
    assert "MLflow has no version 9 of 'churn'" in capfd.readouterr().err
