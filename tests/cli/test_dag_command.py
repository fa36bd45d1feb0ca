"""The command line of a dag: help that teaches, options from the models, errors without tracebacks."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from ml_platform.cli.dag_command import main
from ml_platform.engine import Dag, dag, server as server_of, task
from ml_platform.errors import DataError, InfrastructureError
from ml_platform.resources import leases
from ml_platform.specs.base import Spec
from tests.counters import CounterLease, CounterSpec

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
def trains(label: str = "y", net: NetSpec = NetSpec(), names: tuple[str, ...] = ()) -> int:
    """Train a network.

    Args:
        label: Column to predict.
        net: The network.
        names: Columns to learn from.
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


def test_a_command_behind_options_is_told_where_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(trains, ["--label", "x", "plan"]) == 2
    assert f"try: python -m {__name__} plan …; a command stands before options" in capsys.readouterr().err


def test_a_value_out_of_range_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(trains, ["--net.epochs", "0"]) == 2
    said = capsys.readouterr().err
    assert "--net.epochs: Input should be greater than or equal to 1; got '0'" in said
    assert "Traceback" not in said


LONG = "a_name_" * 15


@dag
def long_named(n: int = 1) -> int:
    return fit.with_options(name=LONG)(NetSpec(epochs=n))


def test_what_goes_to_a_file_is_not_broken_at_a_terminals_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(long_named, ["plan"]) == 0
    assert LONG in capfd.readouterr().out


@dag
def parses(text: str = "no JSON") -> int:
    return fit(json.loads(text))


def test_a_bug_is_shown_by_its_own_line_and_a_log_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Libraries below fill the end of a traceback; and a plan may take longer than the second it began in."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    seconds = itertools.count()
    monkeypatch.setattr("ml_platform.cli.dag_command.time.strftime", lambda _: str(next(seconds)))
    assert main(parses, ["plan"]) == 1
    said = capfd.readouterr().err
    line = parses.function.__code__.co_firstlineno + 2
    assert f"in parses (test_dag_command.py:{line}): return fit(json.loads(text))" in said
    assert Path(said.split("log, with the traceback: ")[1].strip()).exists()


@pytest.mark.parametrize("command", [[], ["plan"]])
def test_a_home_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    (tmp_path / "logs").touch()
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    assert main(trains, command) == 5
    said = capsys.readouterr().err
    assert f"StoreError: the log file {tmp_path}/logs/" in said
    assert "ML_PLATFORM_HOME" in said


def test_an_option_takes_several_values_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(trains, ["graph", "--names", "a", "b", "--label", "z"]) == 0
    assert main(trains, ["graph", "--names", "a", "--names", "b"]) == 0
    assert main(trains, ["graph", "--label", "z", "w"]) == 2
    assert "w" in capsys.readouterr().err


def test_the_graph_command_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(trains, ["graph"]) == 0
    assert capsys.readouterr().out.startswith("flowchart TD")


def test_an_unknown_placement_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(trains, ["--placement", "mars"]) == 2
    assert "no placement 'mars'" in capsys.readouterr().err


def _refuse(label: str) -> None:
    raise DataError(f"there is no column {label}")


@dag(preflight=_refuse)
def refused(label: str = "y") -> int:
    return fit(NetSpec())


@task(preflight=_refuse)
def load(label: str) -> NetSpec:
    raise AssertionError("must not run")


@dag
def loads(label: str = "y") -> int:
    return fit(load(label))


@pytest.mark.parametrize(
    ("trained", "arguments", "code"),
    [(refused, (), 3), (loads, (), 3), (trains, ("--net.epochs", "0"), 2), (loads, ("--force", "lod"), 2)],
)
def test_a_request_that_cannot_work_starts_no_server(
    trained: Dag[..., int],
    arguments: tuple[str, ...],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def start() -> None:
        raise AssertionError("a server was started")

    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setattr(server_of, "configured_api", lambda: None)
    monkeypatch.setattr(server_of, "TemporaryServer", start)
    assert main(trained, arguments) == code
    assert "server" not in capfd.readouterr().err
    assert main(trains, ()) == 1, "a request that may work does start one"


@dag
def uses_things(folder: str) -> int:
    return looks(uses(), folder)


@task
def uses(things: Any = CounterSpec()) -> int:
    raise AssertionError("must not run")


def _was_prepared(folder: str) -> bool:
    seen = Path(folder, "prepared").exists()
    Path(folder, "asked").write_text(str(seen))
    return seen


@task(probe=_was_prepared)
def looks(n: int, folder: str) -> int:
    return n


def test_what_a_command_will_surely_run_is_prepared_while_it_plans(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It plans before it has a server, and so before its run plans again. Not where it only plans."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setattr(server_of, "configured_api", lambda: None)
    monkeypatch.setattr(server_of, "TemporaryServer", Unreachable)
    monkeypatch.setitem(leases.KINDS, "CounterSpec", "tests.counters:CounterLease")
    monkeypatch.setattr(CounterLease, "prepare", lambda spec, placement: (tmp_path / "prepared").touch())

    assert main(uses_things, ("plan", "--folder", str(tmp_path))) == 0
    assert (tmp_path / "asked").read_text() == "False"
    assert main(uses_things, ("--folder", str(tmp_path))) == 5
    assert "no server today" in capfd.readouterr().err
    assert (tmp_path / "asked").read_text() == "True"


class Unreachable:
    """In the place of a server that starts while a command plans."""

    def url(self) -> str:
        raise InfrastructureError("no server today")

    def is_alive(self) -> bool:
        return True

    def stop(self) -> None: ...

    def kill(self) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "doubling.py").write_text(DAG_FILE)
    return folder


def _run(folder: Path, *arguments: str, server: str = "") -> subprocess.CompletedProcess[str]:
    """The command as a person types it; on a server of its own unless one is named."""
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "ML_PLATFORM_HOME": str(folder / "home")}
    if server:
        environment["PREFECT_API_URL"] = server
    command = [sys.executable, "-m", "doubling", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.long
@pytest.mark.slow
def test_a_run_as_a_person_types_it(folder: Path, server: str) -> None:
    """stdout holds the result alone, whatever tasks print; the rest is one line per event on stderr.
    Exit codes tell data errors (3) from bugs (1); tracebacks stay in the log."""
    fine = _run(folder, "--n", "4", "--json")
    assert fine.returncode == 0, fine.stderr
    assert json.loads(fine.stdout) == 16
    assert "double-2" in fine.stderr
    assert "chatter" not in fine.stderr

    data = _run(folder, "--n", "60", server=server)
    assert data.returncode == 3, data.stderr
    assert "DataError: x is too large" in data.stderr
    assert "wanted: at most 100" in data.stderr
    assert "got: 120" in data.stderr
    assert "Traceback" not in data.stderr

    bug = _run(folder, "--n", "-1", server=server)
    assert bug.returncode == 1
    assert "ZeroDivisionError: a bug" in bug.stderr
    log = Path(bug.stderr.split("log, with the traceback: ")[1].strip())
    assert "Traceback" in log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_plan_run_and_resume_as_a_person_types_them(folder: Path, server: str) -> None:
    """What is stored is not run again; why something runs is said before it does; runs are told apart."""
    assert _run(folder, "--n", "7", server=server).returncode == 0

    planned = json.loads(_run(folder, "plan", "--n", "7", "--json").stdout)
    assert [(node["name"], node["verdict"]) for node in planned["nodes"]] == [
        ("double", "cached"),
        ("double-2", "cached"),
    ]
    assert planned["resources"] == []

    again = _run(folder, "--n", "7", server=server)
    assert again.stdout.strip() == "28"
    assert "nothing to do: 2 results are stored" in again.stderr

    other = _run(folder, "plan", "--n", "8", "--force", "double-2")
    assert "parameter x: 7 → 8" in other.stdout
    assert "forced" in other.stdout

    until = _run(folder, "--n", "8", "--until", "double", "--json", server=server)
    assert json.loads(until.stdout) == 16

    runs = json.loads(_run(folder, "runs", "--json").stdout)
    assert [run["cached"] for run in runs][:2] == [0, 2]
    shown = _run(folder, "show", runs[1]["run"])
    assert "double-2" in shown.stdout
    assert "cached" in shown.stdout
    differ = json.loads(_run(folder, "diff", runs[1]["run"], runs[0]["run"], "--json").stdout)
    assert differ[0] == {"node": "double", "changes": ["parameter x: 7 → 8"]}

    resumed = _run(folder, "resume", runs[1]["run"], "--set", "n=9", "--json", server=server)
    assert json.loads(resumed.stdout) == 36, resumed.stderr

    from_there = _run(folder, "resume", runs[1]["run"], "--from", "double-2", "--json", server=server)
    assert json.loads(from_there.stdout) == 28, from_there.stderr
    assert _states(folder) == {"double": "cached", "double-2": "completed"}

    forced = _run(folder, "--n", "7", "--force", "double", "--json", server=server)
    assert json.loads(forced.stdout) == 28, forced.stderr
    assert _states(folder) == {"double": "completed", "double-2": "cached"}, "the same as before came out"

    dag_file = folder / "doubling.py"
    dag_file.write_text(DAG_FILE.replace("return 2 * x", "return 3 * x"))
    back = ("resume", runs[1]["run"], "--from", "double-2")
    refused = _run(folder, *back, server=server)
    assert refused.returncode == 2
    assert "reuse them as they are: --accept double" in refused.stderr
    planned = json.loads(_run(folder, *back, "--accept", "double", "--dry-run", "--json").stdout)
    assert [(node["name"], node["verdict"]) for node in planned["nodes"]] == [
        ("double", "cached"),
        ("double-2", "run"),
    ]
    accepted = _run(folder, *back, "--accept", "double", "--json", server=server)
    assert json.loads(accepted.stdout) == 42, accepted.stderr
    assert _states(folder) == {"double": "cached", "double-2": "completed"}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_drill_as_a_person_types_it(folder: Path) -> None:
    drilled = _run(folder, "drill", "--n", "4")
    assert drilled.returncode == 0, drilled.stderr
    crashes, _, said = drilled.stdout.strip().partition(" ")
    assert said.startswith("crashes survived in ")
    assert drilled.stderr.count("killed at ") == int(crashes) >= 8
    assert "killed at double-2: ran" in drilled.stderr


def _states(folder: Path) -> dict[str, str]:
    """What became of the nodes of the newest run."""
    newest = max((folder / "home" / "runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    return {node["node"]: node["state"] for node in json.loads(newest.read_text())["nodes"]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resume", "no-such-run"), "there is no run 'no-such-run'"),
        (("show", "no-such-run"), "there is no run 'no-such-run'"),
        (("plan", "--force", "fitt"), "did you mean 'fit'?"),
        (("plan", "--until", "fitt"), "did you mean 'fit'?"),
    ],
)
def test_a_wrong_request_about_a_run_is_a_usage_error(
    arguments: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(trains, arguments) == 2
    text = capfd.readouterr().err
    assert said in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_a_plan_of_what_cannot_run_says_so_and_why(folder: Path) -> None:
    """The plan is printed whole; the exit code is that of what stands in the way."""
    (folder / "blocked.py").write_text(
        """
from ml_platform import dag, task
from ml_platform.errors import DataError

def missing(source: str) -> None:
    raise DataError(f"there is no file {source}")

@task(preflight=missing)
def load(source: str) -> int:
    return 1

@task
def use(x: int) -> int:
    return x

@dag
def blocked(source: str = "table.csv") -> int:
    return use(load(source))

if __name__ == "__main__":
    blocked.cli()
"""
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "ML_PLATFORM_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "blocked", "plan"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3
    assert "blocked" in done.stdout
    assert "load is blocked" in done.stdout
    assert "DataError: there is no file table.csv" in done.stderr
