"""The servers of one machine: refusals, and one real start and end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ml_platform.cli.probes import get_json, responds
from ml_platform.cli.services import MARK, Process, Services, services, start, stop
from ml_platform.errors import InfrastructureError, ResourceStartError, UsageError
from ml_platform.resources.ports import free_port
from ml_platform.store.location import home


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    stop()


def free_ports() -> tuple[int, int]:
    return free_port(), free_port()


def marked() -> list[str]:
    """Command lines of all processes that carry this test's home, read off the process table."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(home()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def registered(process: Process) -> None:
    told = Services(
        prefect_url="http://127.0.0.1:1", prefect_api_url="http://127.0.0.1:1/api",
        mlflow_url="http://127.0.0.1:2", processes=(process,),
    )  # fmt: skip
    (home() / "services.json").write_text(told.model_dump_json())


def test_nothing_registered_is_nothing_up() -> None:
    assert services() is None
    assert stop() == 0


def test_a_dead_process_is_not_up() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    registered(Process(name="prefect", pid=ended.pid, started=0))
    assert services() is None


def test_another_process_with_the_same_number_is_not_up() -> None:
    """Numbers come again; the time of the start does not."""
    own = psutil.Process()
    registered(Process(name="prefect", pid=own.pid, started=own.create_time() - 3600))
    assert services() is None
    registered(Process(name="prefect", pid=own.pid, started=own.create_time()))
    assert services() is not None


def test_a_register_that_cannot_be_read_is_nothing_up() -> None:
    (home() / "services.json").write_text('{"half": ')
    assert services() is None


def test_a_second_start_is_refused() -> None:
    own = psutil.Process()
    registered(Process(name="prefect", pid=own.pid, started=own.create_time()))
    with pytest.raises(UsageError, match="up already"):
        start()


def test_a_taken_port_is_refused_and_its_owner_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InfrastructureError, match="for MLflow cannot be had") as caught:
            start(prefect_port=free_ports()[0], mlflow_port=port)
    assert str(os.getpid()) in str(caught.value)
    assert "--mlflow-port" in str(caught.value)
    assert marked() == []


def test_the_end_finds_what_left_its_group_and_its_parent() -> None:
    """A daemon of a server's child has neither its group nor its parent, but still its environment."""
    daemon = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(600)"
    subprocess.run([sys.executable, "-c", daemon], env={**os.environ, MARK: str(home())}, check=True)
    assert len(marked()) == 1
    with pytest.raises(UsageError, match="still run"):
        start()
    assert stop() == 1
    assert marked() == []


@pytest.mark.long
@pytest.mark.slow
def test_a_server_that_ends_at_once_is_told_with_its_log(own_home: Path) -> None:
    """Prefect finds no database where a folder is; nothing stays of the other server."""
    (home() / "prefect.db").mkdir()
    prefect, mlflow = free_ports()
    with pytest.raises(ResourceStartError, match="service prefect did not start") as caught:
        start(prefect_port=prefect, mlflow_port=mlflow)
    assert "unable to open database file" in str(caught.value)
    assert marked() == []
    assert not (own_home / "services.json").exists()


@pytest.mark.long
@pytest.mark.slow
def test_up_serves_and_down_leaves_nothing(own_home: Path) -> None:
    """The commands as a person types them, on free ports; the process table is the witness."""
    prefect, mlflow = free_ports()
    command = [sys.executable, "-m", "ml_platform"]
    ports = ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    said = subprocess.run([*command, "up", *ports], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert f"http://127.0.0.1:{prefect}" in said.stdout
    told = services()
    assert told is not None
    assert responds(f"{told.prefect_api_url}/health")
    assert responds(f"{told.mlflow_url}/health")
    assert get_json(f"{told.prefect_api_url}/work_pools/ml-process")["type"] == "process"
    settings = get_json(f"{told.prefect_url}/ui-settings")
    assert settings["api_url"] == told.prefect_api_url
    assert listening_addresses(prefect, mlflow) == {"127.0.0.1"}

    again = subprocess.run([*command, "up", *ports], capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert services() == told

    ended = subprocess.run([*command, "down"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert marked() == []
    assert listening_addresses(prefect, mlflow) == set()
    assert not (own_home / "services.json").exists()
    assert not any(psutil.pid_exists(process.pid) for process in told.processes)


def listening_addresses(*ports: int) -> set[str]:
    return {
        str(connection.laddr[0])
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1] in ports
    }
