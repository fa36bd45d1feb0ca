"""Which runs the one under way goes on with: what an earlier part of a run has done is no news to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_so_far: ContextVar[tuple[str, ...]] = ContextVar("runs so far", default=())


@contextmanager
def going_on(runs: tuple[str, ...]) -> Iterator[None]:
    """What is planned or run inside is part of these, or goes on with them."""
    token = _so_far.set(runs)
    try:
        yield
    finally:
        _so_far.reset(token)


def runs_so_far() -> tuple[str, ...]:
    """Names of the flow run under way, which Prefect may have tried before, and of those that it resumes.

    For probes of what a run itself changes.
    """
    return _so_far.get()
