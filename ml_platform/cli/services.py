"""The servers of one machine: a Prefect server, an MLflow server, a Prefect worker. All on loopback.

They share the databases of the embedded mode, so their pages show the runs of before. Every process that
they start, flow runs included, carries the platform's folder in its environment: `stop` finds them by it,
also those that left their process group or outlived their parent.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from pydantic import ValidationError

from ml_platform.cli.probes import get_json, port_owner, responds
from ml_platform.errors import InfrastructureError, ResourceStartError, UsageError
from ml_platform.specs.base import Spec
from ml_platform.store.atomic import write_atomically
from ml_platform.store.location import home
from ml_platform.store.prefect_database import database_url, prepare_database

WORK_POOL = "ml-process"
HOST = "127.0.0.1"
MARK = "ML_PLATFORM_SERVICES"
START_TIMEOUT_S = 180
FLOWS_END_TIMEOUT_S = 20
SERVERS_END_TIMEOUT_S = 10
ROUNDS = 3
POLL_S = 0.2
CLOCK_STEP_S = 2
"""The start of a process is counted from the boot, whose time moves when the clock is set."""
MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Eight processes for jobs of GenAI features that nothing here asks for.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
TAIL_LINES = 15

Say = Callable[[str], None]


class Process(Spec):
    """A started server. Its start tells it from a later process with the same number."""

    name: str
    pid: int
    started: float

    @property
    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < CLOCK_STEP_S
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class Services(Spec):
    """What is up: where it is, and the processes that are it."""

    prefect_url: str
    prefect_api_url: str
    mlflow_url: str
    work_pool: str = WORK_POOL
    processes: tuple[Process, ...]


def services() -> Services | None:
    """What `up` started, if all of it is alive."""
    try:
        told = Services.model_validate_json(_register().read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return told if all(process.alive for process in told.processes) else None


def start(*, prefect_port: int = 4200, mlflow_port: int = 5000, say: Say = lambda _: None) -> Services:
    """Start the three, wait until each answers, register them. Nothing stays when one does not start.

    Raises:
        UsageError: They are up already, or what is left of them still runs.
        InfrastructureError: A port is taken.
        ResourceStartError: One ended or did not answer in time; with the last lines of its log.
    """
    with _alone():
        _refuse_a_second_start()
        for name, port in (("Prefect", prefect_port), ("MLflow", mlflow_port)):
            _refuse_taken(name, port)
        try:
            told = _start_all(prefect_port, mlflow_port, say)
        except BaseException:
            _end_all()
            raise
        write_atomically(_register(), told.model_dump_json(indent=2).encode())
        return told


def stop(*, say: Say = lambda _: None) -> int:
    """End the worker and its flow runs first, then the servers, then whatever carries the mark.

    Returns:
        How many processes were ended. 0 when nothing was up.
    """
    with _alone():
        if _marked():
            say("ending flow runs and the worker, then the servers")
        return _end_all()


# ── Start ────────────────────────────────────────────────────────────────────────────────────────


def _start_all(prefect_port: int, mlflow_port: int, say: Say) -> Services:
    prefect_url, mlflow_url = f"http://{HOST}:{prefect_port}", f"http://{HOST}:{mlflow_port}"
    api = f"{prefect_url}/api"
    say(f"starting a Prefect server on {prefect_url} and an MLflow server on {mlflow_url}")
    prepare_database()
    prefect = _spawn("prefect", _prefect_command(prefect_port), _prefect_environment(api))
    mlflow = _spawn("mlflow", _mlflow_command(mlflow_port), MLFLOW_SETTINGS)
    _wait_until("prefect", prefect, lambda: responds(f"{api}/health"))
    _wait_until("mlflow", mlflow, lambda: responds(f"{mlflow_url}/health"))
    say(f"starting a Prefect worker for work pool {WORK_POOL}")
    name = f"ml-platform-{uuid.uuid4().hex[:8]}"
    addresses = {"PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": mlflow_url}
    worker = _spawn("worker", _worker_command(name), addresses)
    _wait_until("worker", worker, lambda: _worker_is_online(api, name))
    started = (("prefect", prefect), ("mlflow", mlflow), ("worker", worker))
    return Services(
        prefect_url=prefect_url,
        prefect_api_url=api,
        mlflow_url=mlflow_url,
        processes=tuple(_process(name, popen.pid) for name, popen in started),
    )


def _prefect_command(port: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "prefect",
        "--no-prompt",
        "server",
        "start",
        "--host",
        HOST,
        "--port",
        str(port),
    ]


def _prefect_environment(api: str) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(home() / "prefect"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url(),
        # Its task logs tracebacks about a locked SQLite file, and tells a stranger about this machine.
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # The pages ask port 4200 unless they are told.
        "PREFECT_UI_API_URL": api,
    }


def _mlflow_command(port: int) -> list[str]:
    place = ["--backend-store-uri", f"sqlite:///{home() / 'mlflow.db'}"]
    artifacts = ["--serve-artifacts", "--artifacts-destination", (home() / "mlartifacts").as_uri()]
    listen = ["--host", HOST, "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *listen, *place, *artifacts]


def _worker_command(name: str) -> list[str]:
    return [
        sys.executable, "-m", "prefect", "--no-prompt", "worker", "start",
        "--name", name, "--pool", WORK_POOL, "--type", "process",
    ]  # fmt: skip


def _spawn(name: str, command: list[str], settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a server as the leader of a process group of its own, writing to services/<name>.log."""
    foreign = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_API_KEY")
    env = {key: value for key, value in os.environ.items() if key not in foreign}
    env |= {MARK: str(home()), "ML_PLATFORM_HOME": str(home()), **settings}
    with _log(name).open("wb") as log:
        return subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until(name: str, process: subprocess.Popen[bytes], healthy: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not healthy():
        if process.poll() is not None:
            raise _did_not_start(name, f"it ended with exit code {process.returncode}")
        if time.monotonic() > deadline:
            raise _did_not_start(name, "no answer")
        time.sleep(POLL_S)


def _did_not_start(name: str, got: str) -> ResourceStartError:
    lines = _log(name).read_text(errors="replace").splitlines()[-TAIL_LINES:]
    return ResourceStartError(
        f"the service {name} did not start",
        wanted=f"an answer within {START_TIMEOUT_S} s",
        got=got,
        evidence="\n".join(lines),
        hint=f"the whole log: {_log(name)}",
    )


def _worker_is_online(api: str, name: str) -> bool:
    found = get_json(f"{api}/work_pools/{WORK_POOL}/workers/filter", body={})
    return any(worker["name"] == name and worker["status"] == "ONLINE" for worker in found or [])


def _refuse_a_second_start() -> None:
    told = services()
    if told is not None:
        raise UsageError(
            "the services are up already",
            got=f"Prefect {told.prefect_url}, MLflow {told.mlflow_url}",
            hint="python -m ml_platform down",
        )
    left = _marked()
    if left:
        raise UsageError(
            "some of the services still run",
            got=", ".join(f"{process.name()} {process.pid}" for process in left),
            hint="python -m ml_platform down",
        )


def _refuse_taken(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InfrastructureError(
                f"port {port} for {name} cannot be had",
                wanted="a port on which nobody listens",
                got=port_owner(port) or error.strerror,
                hint=f"python -m ml_platform up --{name.lower()}-port PORT",
            ) from error


# ── End ──────────────────────────────────────────────────────────────────────────────────────────


def _end_all() -> int:
    """Flow runs end while the Prefect server still hears what became of them."""
    servers = {process.pid for process in _servers()}
    ended = _end([process for process in _marked() if process.pid not in servers], FLOWS_END_TIMEOUT_S)
    for _ in range(ROUNDS):
        # A round may have raced with a process that was just starting another.
        ended += _end(_marked(), SERVERS_END_TIMEOUT_S)
    left = _marked()
    if left:
        raise InfrastructureError(
            "some services could not be ended",
            got=", ".join(f"{p.name()} {p.pid}" for p in left),
            hint="kill -9",
        )
    _register().unlink(missing_ok=True)
    return ended


def _servers() -> list[psutil.Process]:
    """The two servers and everything below them."""
    found: list[psutil.Process] = []
    for process in _marked():
        with suppress(psutil.Error):
            words = process.cmdline()
            if words[1:3] == ["-m", "mlflow"] or (words[1:3] == ["-m", "prefect"] and "server" in words):
                found += [process, *process.children(recursive=True)]
    return found


def _marked() -> list[psutil.Process]:
    """Living processes with the mark of this folder, less this one and those it was started by."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in own and _has_mark(process)]


def _has_mark(process: psutil.Process) -> bool:
    try:
        return process.environ().get(MARK) == str(home()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _end(processes: Iterable[psutil.Process], timeout_s: float) -> int:
    """Ask, wait, then kill. Returns how many ended."""
    asked = list(processes)
    for process in asked:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(asked, timeout=timeout_s)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=timeout_s)
    return len(asked)


# ── Places ───────────────────────────────────────────────────────────────────────────────────────


def _register() -> Path:
    return home() / "services.json"


def _log(name: str) -> Path:
    return home() / "services" / f"{name}.log"


def _process(name: str, pid: int) -> Process:
    return Process(name=name, pid=pid, started=psutil.Process(pid).create_time())


@contextmanager
def _alone() -> Iterator[None]:
    """One start or stop at a time."""
    folder = home() / "services"
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
