"""The doctor's judgements, and the command as a person runs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ml_platform.cli.checks import Check
from ml_platform.cli.doctor import examine, render, to_json
from ml_platform.cli.machine_checks import check_disk, judge_disk, judge_java, judge_memory
from ml_platform.cli.probes import answer, port_owner
from ml_platform.cli.server_checks import check_mlflow, check_prefect, configured_prefect_api
from ml_platform.cli.version_checks import PINS, Pin, check_pin

FASTAPI = next(pin for pin in PINS if pin.package == "fastapi")


@pytest.fixture
def listener() -> Iterator[int]:
    """A port on which somebody listens, and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def no_prefect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No Prefect API is configured; its folder is the returned one."""
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_version_that_breaks_blocks_and_says_why() -> None:
    check = check_pin(FASTAPI, "0.165.0")
    assert check.status == "block"
    assert "min_items" in check.reason
    assert check.next_step


def test_another_version_without_known_harm_warns() -> None:
    assert check_pin(Pin(package="pandas", wanted="<3", reason="warns"), "3.0.1").status == "warn"


def test_a_fitting_version_has_nothing_to_say() -> None:
    check = check_pin(FASTAPI, "0.150.0")
    assert (check.status, check.reason, check.next_step) == ("ok", "", "")


def test_a_missing_package_blocks() -> None:
    check = check_pin(FASTAPI, None)
    assert (check.status, check.found, check.next_step) == ("block", "not installed", "make setup")


@pytest.mark.parametrize(
    ("version", "status"),
    [("17.0.15", "ok"), ("21", "ok"), ("1.8.0_402", "block"), ("11.0.2", "block"), (None, "block")],
)
def test_java_is_judged_by_its_major_version(version: str | None, status: str) -> None:
    assert judge_java(version).status == status


def test_a_missing_java_comes_with_how_to_get_it() -> None:
    assert "openjdk-17-jre-headless" in judge_java(None).next_step


@pytest.mark.parametrize(("free", "status"), [(1.5, "block"), (3, "warn"), (8, "ok")])
def test_memory_is_judged_by_what_is_free(free: float, status: str) -> None:
    assert judge_memory(free, 64).status == status


@pytest.mark.parametrize(("free", "status"), [(0.5, "block"), (3, "warn"), (8, "ok")])
def test_disk_is_judged_by_what_is_free(free: float, status: str) -> None:
    assert judge_disk(free, Path("/data")).status == status


def test_a_home_that_cannot_be_made_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "file" / "home"))
    (check,) = check_disk()
    assert check.status == "block"
    assert "ML_PLATFORM_HOME" in check.next_step


def test_a_taken_port_names_its_owner(listener: int, closed_port: int) -> None:
    assert str(os.getpid()) in str(port_owner(listener))
    assert port_owner(closed_port) is None


def test_a_silent_server_is_no_answer(listener: int) -> None:
    assert "timed out" in str(answer(f"http://127.0.0.1:{listener}/health"))


@pytest.mark.usefixtures("no_prefect")
def test_nothing_configured_is_fine() -> None:
    assert [check.status for check in (*check_prefect(), *check_mlflow())] == ["ok", "ok"]


@pytest.mark.usefixtures("no_prefect")
def test_a_configured_server_that_is_down_blocks(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{closed_port}/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:canary@127.0.0.1:{closed_port}")
    checks = (*check_prefect(), *check_mlflow())
    assert [check.status for check in checks] == ["block", "block"]
    assert "canary" not in to_json(checks)


def test_the_active_profile_configures_prefect(no_prefect: Path) -> None:
    (no_prefect / "profiles.toml").write_text(
        'active = "team"\n[profiles.team]\nPREFECT_API_URL = "http://there/api"\n[profiles.other]\n'
    )
    assert configured_prefect_api() == "http://there/api"


def test_the_environment_wins_over_the_profile(no_prefect: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (no_prefect / "prefect.toml").write_text('[api]\nurl = "http://file/api"\n')
    assert configured_prefect_api() == "http://file/api"
    monkeypatch.setenv("PREFECT_API_URL", "http://here/api")
    assert configured_prefect_api() == "http://here/api"


def test_the_table_fits_100_columns_and_names_what_blocks() -> None:
    long = Check(
        name="fastapi", status="block", found="x" * 150, wanted="y" * 60, reason="z " * 90, next_step="go"
    )
    out = StringIO()
    render([long, *examine()], Console(file=out, width=160))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines[:-1])) <= 100
    assert lines[-1].startswith("a run would fail: fastapi")


def test_the_command_prints_json_alone_and_its_exit_code_agrees(tmp_path: Path) -> None:
    env = {**os.environ, "ML_PLATFORM_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "ml_platform", "doctor", "--json"]
    said = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    told = json.loads(said.stdout)
    assert said.returncode == (0 if told["ok"] else 1)
    assert {
        "Python",
        "fastapi",
        "Java",
        "Horovod",
        "cores",
        "memory",
        "disk",
        "GPUs",
        "port 4200",
        "MLflow",
    } <= {check["name"] for check in told["checks"]}


def test_the_command_exits_1_when_a_run_would_be_blocked(tmp_path: Path) -> None:
    env = {**os.environ, "ML_PLATFORM_HOME": str(tmp_path), "JAVA_HOME": str(tmp_path / "no-java")}
    command = [sys.executable, "-m", "ml_platform", "doctor"]
    said = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert said.returncode == 1
    assert "Java" in said.stdout.splitlines()[-1]
