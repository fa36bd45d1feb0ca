"""Bad input: a clear error, the right exit code, no traceback, nothing registered, nothing half-written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flows.retrain import retrain
from ml_platform.cli.dag_command import main
from ml_platform.store.manifest import MANIFEST
from tests.engine.conftest import prefect_api
from tests.gangs import ranks_of_this_process
from tests.scenarios.conftest import Project

__all__ = ["prefect_api"]

pytestmark = [pytest.mark.slow]


def _refused(project: Project, code: int, said: str, *arguments: str, **environment: str) -> None:
    """The command as a process of its own: for what only the start, or the end, of a process shows."""
    before = _stored(project.home)
    outcome = project.run("flows.retrain", *arguments, timeout=300, **environment)
    assert outcome.code == code, outcome.err
    _said_well(outcome.out, outcome.err, said)
    assert _stored(project.home) == before
    assert project.leftovers() == []


def _said_well(out: str, err: str, said: str) -> None:
    assert said in " ".join(err.split()), err
    assert "Traceback" not in err
    assert out == ""


def _stored(home: Path) -> int:
    return len(list((home / "data").rglob(MANIFEST)))


@pytest.fixture
def refused(
    project: Project, prefect_api: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """The command in this process, which has the libraries loaded already: the same code, in a second.
    Returns what it said."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(project.home))

    def run(code: int, said: str, *arguments: str, kept: int = 0) -> str:
        before = _stored(project.home)
        assert main(retrain, arguments) == code
        out, err = capfd.readouterr()
        _said_well(out, err, said)
        assert _stored(project.home) == before + kept
        return err

    return run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "churn.csv"
    rows = [f"{i},{i % 7},{'yes' if i % 3 else 'no'}" for i in range(400)]
    path.write_text("\n".join(["customer,visits,churned", *rows]))
    return path


def test_a_missing_file(project: Project, tmp_path: Path) -> None:
    _refused(project, 3, "missing.csv", "--source", str(tmp_path / "missing.csv"), "--label", "y")


def test_a_folder_without_data(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "nothing here").mkdir()
    refused(3, "nothing here", "--source", str(tmp_path / "nothing here"), "--label", "y")


def test_an_unknown_label_names_the_nearest(refused: Callable[..., str], table: Path) -> None:
    refused(2, "did you mean 'churned'?", "--source", str(table), "--label", "churn")


def test_an_empty_table(refused: Callable[..., str], tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("customer,churned\n")
    refused(3, "empty.csv", "--source", str(empty), "--label", "churned")


def test_a_corrupt_parquet_file(refused: Callable[..., str], tmp_path: Path) -> None:
    corrupt = tmp_path / "corrupt.parquet"
    corrupt.write_bytes(b"PAR1" + b"\0" * 64)
    refused(3, "corrupt.parquet", "--source", str(corrupt), "--label", "y")


def test_an_output_that_cannot_be_written(refused: Callable[..., str]) -> None:
    refused(5, "cannot be written", "--predictions", "/proc/predictions")


def test_an_unknown_option(refused: Callable[..., str]) -> None:
    refused(2, "--label", "--lable", "x")


def test_features_of_a_column_that_is_not_there(refused: Callable[..., str], table: Path) -> None:
    """Before Spark starts."""
    treat = "--features.columns.visit.treat"
    refused(2, "did you mean 'visits'?", "--source", str(table), "--label", "churned", treat, "category")
    refused(2, f"{treat}: Input should be", "--source", str(table), "--label", "churned", treat, "magic")


def test_a_table_to_score_that_lacks_a_column(
    refused: Callable[..., str], table: Path, tmp_path: Path
) -> None:
    """Before Spark starts, not after the training."""
    score = tmp_path / "score.csv"
    score.write_text("customer,visit\n1,2\n")
    words = ("--source", str(table), "--label", "churned", "--score", str(score))
    refused(3, "wanted: column 'visits' got: customer, visit try: did you mean 'visit'?", *words)


class _AlwaysFails(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(500)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def broken_mlflow() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _AlwaysFails)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_mlflow_server_that_answers_500(project: Project, broken_mlflow: str, server: str) -> None:
    _refused(project, 5, "500", MLFLOW_TRACKING_URI=broken_mlflow, PREFECT_API_URL=server)


@pytest.mark.spark
@pytest.mark.usefixtures("spark")
def test_too_many_bad_rows_with_the_ten_worst_reasons_and_examples(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    """Twelve columns have some bad values each; those of which there are more come first."""
    names, rows = [f"c{at:02}" for at in range(12)], []
    for at in range(600):
        # Columns by turns, the last ones twice as often.
        bad = names[(at // 2) % 12] if at < 48 else names[6 + at % 6] if at < 60 else None
        rows.append(",".join([*(f"bad {at}" if name == bad else str(at) for name in names), "xy"[at % 2]]))
    table = tmp_path / "bad.csv"
    table.write_text("\n".join([",".join([*names, "y"]), *rows]))
    said = refused(3, "too many rows are bad", "--source", str(table), "--label", "y").splitlines()
    reasons = [line.split(" × ")[1] for line in said if " × " in line]
    assert reasons == [f"column {name!r} is no whole number" for name in (*names[6:], *names[:4])]
    examples = [line for line in said if '"_reason"' in line]
    assert len(examples) == 20
    assert "column 'c06' is no whole number: bad " in examples[0]
    assert "at most 5% of 600 rows" in " ".join(said)


@pytest.mark.spark
@pytest.mark.horovod
@pytest.mark.usefixtures("spark")
def test_a_label_with_one_class(refused: Callable[..., str], tmp_path: Path) -> None:
    table = tmp_path / "same.csv"
    table.write_text("\n".join(["x,y", *(f"{i},only" for i in range(300))]))
    refused(3, "only", "--source", str(table), "--label", "y", kept=1)


@pytest.mark.spark
@pytest.mark.horovod
@pytest.mark.usefixtures("spark")
def test_fewer_rows_than_the_split_and_the_ranks_need(refused: Callable[..., str], tmp_path: Path) -> None:
    """The table itself was loaded whole; of its parts nothing stays, and no rank outlives the refusal."""
    table, before = tmp_path / "few.csv", _ranks()
    table.write_text("\n".join(["x,y", *(f"{i},{i % 2}" for i in range(4))]))
    refused(3, "4 rows", "--source", str(table), "--label", "y", kept=1)
    assert _ranks() <= before


def _ranks() -> set[int]:
    """Ranks below this process; other tests keep a warm pair."""
    return {rank.pid for rank in ranks_of_this_process()}
