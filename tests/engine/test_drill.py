"""The crash drill sees what a crash may leave: the checks themselves, on what they look for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ml_platform.engine import drill as drilling
from ml_platform.engine.drill import MARK, _Drill, crash_drill
from ml_platform.errors import InfrastructureError
from ml_platform.store.leftovers import builder
from tests.engine.together import meeting, restless


@pytest.fixture
def drill(tmp_path: Path) -> _Drill:
    return _Drill(meeting, {"folder": "x"}, tmp_path, "http://127.0.0.1:9/api", 60)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "drilled").mkdir()
    return tmp_path / "drilled"


def test_what_is_whole_passes(drill: _Drill, home: Path) -> None:
    drill._check_processes([])
    drill._check_store(home, [])
    drill._check_leftovers(home)


def test_a_process_that_outlives_its_run_is_named(drill: _Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drilling, "END_TIMEOUT_S", 0.2)
    environment = {**os.environ, MARK: drill._mark}
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as leaked:
        assert psutil.pid_exists(leaked.pid)
        with pytest.raises(
            InfrastructureError, match=r"outlive the run that was killed at add: ran"
        ) as error:
            drill._check_processes(["add: ran"])
        assert str(leaked.pid) in str(error.value)
        leaked.kill()
    drill._check_processes(["add: ran"])


def test_a_data_set_without_its_manifest_is_named(drill: _Drill, home: Path) -> None:
    (home / "data" / "numbers" / ("0" * 32)).mkdir(parents=True)
    with pytest.raises(InfrastructureError, match="a half-written data set after the crash at add: ran"):
        drill._check_store(home, ["add: ran"])


@pytest.mark.parametrize(
    "left", ["temporary/anything", "drilled/runs/r/.run.json-{}", "drilled/predictions/.digits.{}-1"]
)
def test_what_is_left_at_the_end_is_named(drill: _Drill, home: Path, tmp_path: Path, left: str) -> None:
    path = tmp_path / left.format(builder())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(InfrastructureError, match="temporary folders are left") as error:
        drill._check_leftovers(home)
    assert path.name in str(error.value)


@pytest.mark.slow
def test_a_dag_that_cannot_be_imported_is_said(drill: _Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "_what", ("not.there:dag", "{}"))
    drill.begin()
    with pytest.raises(InfrastructureError, match="the process that forks runs failed") as error:
        drill.undisturbed()
    assert "No module named 'not'" in str(error.value)
    drill.end()


@pytest.mark.slow
def test_an_output_that_depends_on_crashes_is_named(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="crashes restless gives something else") as error:
        crash_drill(restless, folder=str(tmp_path))
    assert error.value.got == "1 differences"
    assert (error.value.evidence or "").startswith("output.runs: 1 → ")
