"""Progress of long work: whoever does it reports, whoever watches the task hears.

The engine sets a listener around each task; a library or a rank's driver half calls `report`. Without
a listener reports go nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ml_platform.specs.base import Spec


class Progress(Spec):
    """Where a task stands."""

    message: str
    done: float | None = None
    total: float | None = None


_listener: ContextVar[Callable[[Progress], None] | None] = ContextVar("listener", default=None)


def report(message: str, *, done: float | None = None, total: float | None = None) -> None:
    """Tell whoever watches the present task where it stands."""
    listen = _listener.get()
    if listen is not None:
        listen(Progress(message=message, done=done, total=total))


def listener() -> Callable[[Progress], None] | None:
    """Who hears the reports of this place, for whoever wants to listen before them."""
    return _listener.get()


@contextmanager
def listening(listen: Callable[[Progress], None]) -> Iterator[None]:
    """Hear the reports of the code inside."""
    token = _listener.set(listen)
    try:
        yield
    finally:
        _listener.reset(token)
