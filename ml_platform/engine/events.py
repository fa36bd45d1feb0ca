"""What whoever watches a run gets to see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from ml_platform.specs.base import Spec


class TaskEvent(Spec):
    """Something that happened to a node."""

    run: str
    node: str
    state: Literal["waiting", "running", "done", "cached", "failed", "skipped"]
    seconds: float = 0.0
    message: str = ""
    done: float | None = None
    total: float | None = None


Watcher = Callable[[TaskEvent], None]
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watch: Watcher) -> Iterator[None]:
    """See the events of runs that start inside."""
    token = _watcher.set(watch)
    try:
        yield
    finally:
        _watcher.reset(token)


def current_watcher() -> Watcher:
    """Who watches runs that start here; without anybody, events are lines of the flow run's log."""
    return _watcher.get() or _log_event


def _log_event(event: TaskEvent) -> None:
    from prefect.logging import get_run_logger

    if event.state in ("running", "failed") and event.message:
        get_run_logger().info("%s %s", event.node, event.message)
