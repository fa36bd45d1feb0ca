"""Every private or semi-public call into Prefect, in one place; a contract test holds it to the pin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import prefect
from prefect._internal.uuid7 import uuid7
from prefect.client.schemas.objects import TaskRunResult
from prefect.runtime import task_run
from prefect.task_engine import run_task_async, run_task_sync

from ml_platform.errors import InfrastructureError

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer

_node: ContextVar[str | None] = ContextVar("node", default=None)


def new_run_id() -> UUID:
    """An id for a task run, known before the run is."""
    return uuid7()


def task_run_name() -> str:
    """A node's own name under `@dag`; as Prefect names task runs elsewhere."""
    return _node.get() or f"{task_run.task_name}-{uuid4().hex[:3]}"


def run_node(
    task: prefect.Task[..., Any],
    arguments: dict[str, Any],
    *,
    name: str,
    run_id: UUID,
    parents: Mapping[str, tuple[UUID, ...]],
) -> Any:
    """Run a task as a Prefect task run with this id, and edges per parameter from `parents`."""
    dependencies: Any = {
        parameter: {TaskRunResult(id=parent) for parent in ids} for parameter, ids in parents.items()
    }
    token = _node.set(name)
    try:
        if task.isasync:
            return asyncio.run(
                run_task_async(task, task_run_id=run_id, parameters=arguments, dependencies=dependencies)
            )
        return run_task_sync(task, task_run_id=run_id, parameters=arguments, dependencies=dependencies)
    finally:
        _node.reset(token)


def configured_api() -> str | None:
    """URL of the Prefect API that the environment or the active profile names."""
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


@contextmanager
def temporary_server(database_url: str, *, timeout_s: int = 180) -> Iterator[TemporaryServer]:
    """A Prefect server of this process alone, on a free loopback port. Starts in the background.

    Source: prefect.server.api.server.SubprocessASGIServer, which Prefect's own ephemeral mode uses.
    """
    server = TemporaryServer(database_url, timeout_s=timeout_s)
    try:
        yield server
    finally:
        server.stop()


class TemporaryServer:
    """Started at once in a thread; `url()` waits for it."""

    def __init__(self, database_url: str, *, timeout_s: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._settings = {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(timeout_s),
        }
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefect-server")
        self._server: SubprocessASGIServer | None = None
        self._started = self._pool.submit(self._start)

    def _start(self) -> str:
        from prefect.server.api.server import SubprocessASGIServer
        from prefect.settings import temporary_settings

        with temporary_settings(updates=_as_settings(self._settings)):
            self._server = SubprocessASGIServer()
            self._server.start(timeout=self._timeout_s)
            return self._server.api_url

    def url(self) -> str:
        """The API's URL, once it answers."""
        try:
            return self._started.result()
        except RuntimeError as error:
            raise InfrastructureError(
                "the temporary Prefect server did not start",
                wanted=f"an answer within {self._timeout_s} s",
                got=error,
                hint="run `make up` once and keep it running, or set PREFECT_API_URL",
            ) from error

    def stop(self) -> None:
        """End the server; it must have recorded what it was sent (see `drain`)."""
        self._started.cancel()
        self._pool.shutdown(wait=True)
        if self._server is not None:
            self._server.stop()


def _as_settings(values: Mapping[str, str]) -> dict[Any, Any]:
    import prefect.settings

    return {getattr(prefect.settings, name): value for name, value in values.items()}


@contextmanager
def api_at(url: str) -> Iterator[None]:
    """Flows inside report to this API."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(updates={PREFECT_API_URL: url}):
        yield


def drain(flow_run_id: UUID, *, task_runs: int, timeout_s: float = 120) -> bool:
    """Wait until the server has recorded that many task runs of the flow run, all of them ended.

    The server writes task runs some 20 s late per 1,000.

    Returns:
        Whether it has; False after `timeout_s`.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    mine = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    deadline = time.monotonic() + timeout_s
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            recorded = client.read_task_runs(flow_run_filter=mine)
            ended = [run for run in recorded if run.state is not None and run.state.is_final()]
            if len(ended) >= min(task_runs, 200):
                return True
            time.sleep(0.2)
    return False
