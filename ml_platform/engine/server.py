"""Which Prefect API a command reports to: the configured one, the one of `make up`, or its own."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, get_current_settings, temporary_settings

from ml_platform.engine.prefect_door import flow_runs_of_this_process, wait_until_recorded
from ml_platform.errors import InfrastructureError, PlatformError
from ml_platform.resources.ports import free_port
from ml_platform.store.location import home
from ml_platform.store.prefect_database import database_url, keep_blank, prepare_database

STOP_S = 10
_starter: ContextVar[Callable[[], str] | None] = ContextVar("starter", default=None)
"""Gives the URL of a server that runs from then on."""
RECORDING_S = 120
RECORDING_AFTER_A_FAILURE_S = 15
"""How long a temporary server may take to record what became of a run. Interrupted tasks may never end."""


def configured_api() -> str | None:
    """URL that the environment or the active Prefect profile names."""
    return get_current_settings().api.url


def api_at_hand() -> bool:
    """Whether a Prefect API can be asked: one is configured, or a flow run reports to one."""
    return configured_api() is not None or FlowRunContext.get() is not None


@contextmanager
def asking(url: str | None) -> Iterator[None]:
    """Inside, Prefect is asked at `url`, unless the environment or the active profile names another API.

    With neither, a temporary server starts when somebody asks for the first time: it has what `make up` has.
    """
    if configured_api() is not None:
        yield
    elif url is not None:
        with temporary_settings(updates={PREFECT_API_URL: url}):
            yield
    else:
        with ExitStack() as stack, _on_demand(functools.cache(functools.partial(_started, stack))):
            yield


def _started(stack: ExitStack) -> str:
    server = TemporaryServer()
    stack.callback(server.stop)
    return server.url()


@contextmanager
def _on_demand(start: Callable[[], str]) -> Iterator[None]:
    token = _starter.set(start)
    try:
        yield
    finally:
        _starter.reset(token)


@contextmanager
def api_to_ask() -> Iterator[bool]:
    """Whether a Prefect API can be asked inside. Starts one where `asking` says so.

    Raises:
        InfrastructureError: It did not start.
    """
    start = _starter.get()
    if api_at_hand() or start is None:
        yield api_at_hand()
        return
    with temporary_settings(updates={PREFECT_API_URL: start()}):
        yield True


@contextmanager
def prefect_api(running: str | None, meanwhile: Callable[[], None]) -> Iterator[str]:
    """Flows inside report to a Prefect API; yields where it is, in words.

    Args:
        running: URL of a server that `make up` keeps running, if there is one.
        meanwhile: What to do while a temporary server starts. Its errors end the server, at once.
    """
    url = configured_api() or running
    if url is not None:
        with temporary_settings(updates={PREFECT_API_URL: url}), _cancelled_as_interrupted():
            meanwhile()
            yield url
        return
    server = TemporaryServer()
    try:
        with _on_demand(server.url):
            meanwhile()
    except BaseException:
        server.kill()
        raise
    try:
        # Prefect's home below ours also tells that the server is a temporary one: see `how_to_open`.
        with temporary_settings(updates={PREFECT_API_URL: server.url(), PREFECT_HOME: home() / "prefect"}):
            recording_s = RECORDING_AFTER_A_FAILURE_S
            try:
                yield "a temporary server"
                recording_s = RECORDING_S
            finally:
                if server.is_alive():
                    wait_until_recorded(flow_runs_of_this_process(), timeout_s=recording_s)
    except Exception as error:
        if server.is_alive() or isinstance(error, PlatformError):
            raise
        raise server.lost() from error
    finally:
        server.stop()


@contextmanager
def _cancelled_as_interrupted() -> Iterator[None]:
    """For a command it is the same whether its run was stopped here or in the UI."""
    try:
        yield
    except TerminationSignal as error:
        raise KeyboardInterrupt from error


class TemporaryServer:
    """A Prefect server of this process alone, on a free loopback port. It starts at once, in the
    background; `url()` waits for it. It ends with this process, also after kill -9.

    Attributes:
        address: The API's URL, whether it answers already or not.
    """

    def __init__(self, *, timeout_s: float = 180) -> None:
        self._timeout_s = timeout_s
        self._port = free_port()
        self.address = f"http://127.0.0.1:{self._port}/api"
        self._log = home() / "prefect-server.log"
        self._has_tables = prepare_database()
        # The server dies with the thread that started it (PDEATHSIG), so that thread is kept.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefect-server")
        self._process = self._thread.submit(self._start).result()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PREFECT_HOME": str(home() / "prefect"),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url(),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_UI_ENABLED": "false",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
        }
        environment.pop("PREFECT_API_URL", None)
        application = ["uvicorn", "--factory", "prefect.server.api.server:create_app", "--lifespan", "on"]
        address = ["--host", "127.0.0.1", "--port", str(self._port), "--log-level", "warning"]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *application, *address],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
                start_new_session=True,
            )

    def url(self) -> str:
        """The API's URL, once it answers.

        Raises:
            InfrastructureError: It ended or did not answer in time; quotes its log.
        """
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline and self.is_alive():
            if _answers(f"{self.address}/health"):
                keep_blank()
                return self.address
            time.sleep(0.1)
        wanted = f"an answer within {self._timeout_s:g} s"
        raise self._error("the temporary Prefect server did not start", wanted)

    def lost(self) -> InfrastructureError:
        """It has ended before its time."""
        return self._error("the temporary Prefect server ended while a run was under way", "one that stays")

    def _error(self, what: str, wanted: str) -> InfrastructureError:
        return InfrastructureError(
            what,
            wanted=wanted,
            got="silence" if self.is_alive() else f"exit code {self._process.poll()}",
            evidence=_tail(self._log),
            hint="`make up` keeps a server running; or set PREFECT_API_URL to one of yours",
        )

    def is_alive(self) -> bool:
        """Whether there is still somebody to wait for."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it. What it has not recorded by now is lost."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=STOP_S)
        self._process.kill()
        self._process.wait()
        self._thread.shutdown()

    def kill(self) -> None:
        """End it now, while it has nothing to record: as it starts, it does not listen to anybody.

        One that is still making its tables is given the time, or nobody could use them.
        """
        if self._has_tables:
            self._process.kill()
        self.stop()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def how_to_open(flow_run_id: str) -> str:
    """URL of a flow run's page; with a temporary server, what to start first."""
    from prefect.settings import PREFECT_UI_URL

    page = f"/runs/flow-run/{flow_run_id}"
    if PREFECT_HOME.value() == home() / "prefect":
        return f"make up, then http://127.0.0.1:4200{page}"
    return f"{PREFECT_UI_URL.value() or ''}{page}"
