"""Every private or semi-public call into Prefect, in one place; a contract test holds it to the pin."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any
from uuid import UUID

import prefect
from prefect._internal import control_listener
from prefect._internal.uuid7 import uuid7
from prefect.client.schemas.objects import State, StateDetails, TaskRun, TaskRunPolicy, TaskRunResult
from prefect.context import FlowRunContext, TagsContext
from prefect.states import Completed, Crashed, Pending, Running
from prefect.task_engine import run_task_async, run_task_sync
from prefect.utilities.annotations import quote
from prefect.utilities.engine import (
    emit_task_run_state_change_event,
    is_prefect_sigterm_handler_installed,
)

from ml_platform.errors import TaskTimeoutError
from ml_platform.resources.planning import at_work

CANCEL_POLL_S = 2.0

_node: ContextVar[str | None] = ContextVar("node", default=None)


def new_run_id() -> UUID:
    """An id for a task run, known before the run is."""
    return uuid7()


def current_node() -> str | None:
    """The node that this thread runs; None outside of a dag."""
    return _node.get()


_started: Counter[UUID] = Counter()
_counting = threading.Lock()


def _count(flow_run_id: UUID | None) -> None:
    assert flow_run_id is not None
    with _counting:
        _started[flow_run_id] += 1


def flow_runs_of_this_process() -> tuple[UUID, ...]:
    """Flow runs in which the engine has started task runs."""
    return tuple(_started)


def run_node(
    task: prefect.Task[..., Any],
    arguments: dict[str, Any],
    *,
    name: str,
    run_id: UUID,
    parents: Mapping[str, tuple[UUID, ...]],
) -> Any:
    """Run a task as a Prefect task run with this id and name, and edges per parameter from `parents`.

    Its first state on the server is Running: that it was Pending for some microseconds is told to nobody.
    """
    run = _new_run(task, name, run_id, parents)
    _count(run.flow_run_id)
    arguments = {parameter: _whole(value) for parameter, value in arguments.items()}
    token = _node.set(name)
    try:
        if task.isasync:
            return asyncio.run(run_task_async(task, task_run=run, parameters=arguments))
        return run_task_sync(task, task_run=run, parameters=arguments)
    except TimeoutError as error:
        if task.timeout_seconds is None:
            raise
        raise took_too_long(name, task.timeout_seconds, error) from error
    finally:
        _node.reset(token)


def _whole(value: Any) -> Any:
    """An argument that Prefect hands over as it is.

    It would look for promises of its own in each field of each column of a table. Ours are kept by now.
    """
    return value if value is None or type(value) in (bool, int, float, str) else quote(value)


def call_node(task: prefect.Task[..., Any], arguments: dict[str, Any], *, name: str) -> Any:
    """Call a task as a part of the flow run, without a task run of its own."""
    token = _node.set(name)
    try:
        return task.fn(**arguments)
    finally:
        _node.reset(token)


def took_too_long(name: str, timeout_s: float, error: BaseException) -> TaskTimeoutError:
    """What ends a task at its `timeout_seconds`, whoever noticed first: our clock or Prefect's."""
    got = str(error) or "it was still at work"
    return TaskTimeoutError(f"task {name} took too long", wanted=f"at most {timeout_s:g} s", got=got)


def record_node(
    task: prefect.Task[..., Any],
    *,
    name: str,
    run_id: UUID,
    parents: Mapping[str, tuple[UUID, ...]],
    state: str,
    message: str,
) -> None:
    """Show a node that did not run: a task run that ended as `state` (Cached, Skipped) without a body."""
    run = _new_run(task, name, run_id, parents)
    _count(run.flow_run_id)
    before = run.state
    details = StateDetails(task_run_id=run.id, flow_run_id=run.flow_run_id)
    run.state = Completed(name=state, message=message, state_details=details)
    emit_task_run_state_change_event(run, before, run.state)


def _flow_run_id() -> UUID:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run.id


def _new_run(
    task: prefect.Task[..., Any], name: str, run_id: UUID, parents: Mapping[str, tuple[UUID, ...]]
) -> TaskRun:
    """A task run of the present flow run, not started yet, as Prefect makes one for a call."""
    flow_run_id = _flow_run_id()
    state: State[None] = Pending(state_details=StateDetails(task_run_id=run_id, flow_run_id=flow_run_id))
    return TaskRun(
        id=run_id,
        name=name,
        flow_run_id=flow_run_id,
        task_key=task.task_key,
        dynamic_key=str(run_id),
        task_version=task.version,
        empirical_policy=TaskRunPolicy(
            retries=task.retries,
            retry_delay=task.retry_delay_seconds,
            retry_jitter_factor=task.retry_jitter_factor,
        ),
        tags=list(task.tags | TagsContext.get().current_tags),
        task_inputs={
            parameter: [TaskRunResult(id=parent) for parent in ids] for parameter, ids in parents.items()
        },
        expected_start_time=state.timestamp,
        state_id=state.id,
        state_type=state.type,
        state_name=state.name,
        state=state,
    )


def record_crash(
    task: prefect.Task[..., Any],
    *,
    name: str,
    run_id: UUID,
    parents: Mapping[str, tuple[UUID, ...]],
    message: str,
) -> None:
    """Say of a task run that it is over, though its thread cannot be made to say so."""
    run = _new_run(task, name, run_id, parents)
    details = StateDetails(task_run_id=run.id, flow_run_id=run.flow_run_id)
    run.state = Crashed(message=message, state_details=details)
    emit_task_run_state_change_event(run, Running(state_details=details), run.state)


@contextmanager
def heeding_cancellation() -> Iterator[None]:
    """End the flow run inside as one of a worker ends when somebody cancels it in the UI or by the API.

    A worker tells its runs. One that a person started has nobody who would, so it asks.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or not is_prefect_sigterm_handler_installed():
        yield
        return
    ended, deciding = threading.Event(), threading.Lock()
    asking = copy_context().run, _end_when_cancelled, _flow_run_id(), ended, deciding
    threading.Thread(target=asking[0], args=asking[1:], name="cancellation", daemon=True).start()
    try:
        yield
    finally:
        with deciding:
            ended.set()


def _end_when_cancelled(flow_run_id: UUID, ended: threading.Event, deciding: threading.Lock) -> None:
    from prefect.client.orchestration import get_client

    with at_work(), get_client(sync_client=True) as client:
        while not ended.wait(CANCEL_POLL_S):
            try:
                run = client.read_flow_run(flow_run_id)
            except Exception:  # noqa: BLE001  (the server may be away for a while; the run goes on)
                continue
            if run.infrastructure_pid is not None:
                return
            if run.state is not None and (run.state.is_cancelling() or run.state.is_cancelled()):
                with deciding:
                    if not ended.is_set():
                        control_listener._set_intent("cancel")
                        os.kill(os.getpid(), signal.SIGTERM)
                return


def flush(*, timeout_s: float | None = None) -> None:
    """Send every log line and event of this process that is still queued."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=timeout_s)
    EventsWorker.drain_all(timeout=timeout_s)


def wait_until_recorded(flow_run_ids: Iterable[UUID], *, timeout_s: float = 120) -> bool:
    """Wait until the server has recorded the end of every task run of these flow runs.

    The server writes task runs from events, some 20 s late per 1,000.

    Returns:
        Whether it has; False after `timeout_s`.
    """
    from prefect.client.orchestration import get_client

    deadline = time.monotonic() + timeout_s
    flush(timeout_s=timeout_s)
    with get_client(sync_client=True) as client:
        while not all(_recorded(client, flow_run_id) for flow_run_id in flow_run_ids):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
    return True


def _recorded(client: Any, flow_run_id: UUID) -> bool:
    """Whether as many task runs have ended as the engine has started in this flow run."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    mine = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    ended, offset = 0, 0
    while page := client.read_task_runs(flow_run_filter=mine, limit=200, offset=offset):
        ended += sum(run.state is not None and run.state.is_final() for run in page)
        offset += len(page)
    return ended >= _started.get(flow_run_id, 0)
