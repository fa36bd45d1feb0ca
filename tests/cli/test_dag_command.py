"""The command line of a dag: help that teaches, options from the models, errors without tracebacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from ml_platform.cli.dag_command import main
from ml_platform.engine import dag, task
from ml_platform.errors import DataError
from ml_platform.specs.base import Spec

DAG_FILE = '''
from ml_platform import dag, task
from ml_platform.errors import DataError

@task
def double(x: int) -> int:
    print("chatter on stdout")
    if x > 100:
        raise DataError("x is too large", wanted="at most 100", got=x)
    if x < 0:
        raise ZeroDivisionError("a bug")
    return 2 * x

@dag
def doubled(n: int = 3) -> int:
    """Double a number.

    Args:
        n: The number.
    """
    return double(double(n))

if __name__ == "__main__":
    doubled.cli()
'''


class NetSpec(Spec):
    """A network."""

    epochs: int = Field(5, ge=1, description="Passes over the rows.")
    kind: Literal["dense", "deep"] = "dense"


@task
def fit(spec: NetSpec) -> int:
    raise DataError("must not run")


@dag
def trains(label: str = "y", net: NetSpec = NetSpec()) -> int:
    """Train a network.

    Args:
        label: Column to predict.
        net: The network.
    """
    return fit(net)


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(trains, ["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for said in (
        "Train a network.",
        "Column to predict.",
        "--net.epochs",
        "Passes over the rows.",
        "--json",
        "graph",
    ):
        assert said in text, said


def test_an_unknown_option_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(trains, ["--lable", "x"]) == 2
    assert "--label" in capsys.readouterr().err


def test_a_value_out_of_range_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(trains, ["--net.epochs", "0"]) == 2
    said = capsys.readouterr().err
    assert "--net.epochs: Input should be greater than or equal to 1; got '0'" in said
    assert "Traceback" not in said


def test_the_graph_command_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(trains, ["graph"]) == 0
    assert capsys.readouterr().out.startswith("flowchart TD")


def test_an_unknown_placement_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(trains, ["--placement", "mars"]) == 2
    assert "no placement 'mars'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "doubling.py").write_text(DAG_FILE)
    return folder


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "ML_PLATFORM_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "doubling", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_run_as_a_person_types_it(folder: Path) -> None:
    """stdout holds the result alone, whatever tasks print; the rest is one line per event on stderr.
    Exit codes tell data errors (3) from bugs (1); tracebacks stay in the log."""
    fine = _run(folder, "--n", "4", "--json")
    assert fine.returncode == 0, fine.stderr
    assert json.loads(fine.stdout) == 16
    assert "double-2" in fine.stderr
    assert "chatter" not in fine.stderr

    data = _run(folder, "--n", "60")
    assert data.returncode == 3, data.stderr
    assert "DataError: x is too large" in data.stderr
    assert "wanted: at most 100" in data.stderr
    assert "got: 120" in data.stderr
    assert "Traceback" not in data.stderr

    bug = _run(folder, "--n", "-1")
    assert bug.returncode == 1
    assert "ZeroDivisionError: a bug" in bug.stderr
    log = Path(bug.stderr.split("log, with the traceback: ")[1].strip())
    assert "Traceback" in log.read_text()
