"""Which runs the one under way goes on with: what an earlier part of a run has done is no news to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_earlier: ContextVar[tuple[str, ...]] = ContextVar("earlier runs", default=())


@contextmanager
def going_on(runs: tuple[str, ...]) -> Iterator[None]:
    """What is planned or run inside goes on with these."""
    token = _earlier.set(runs)
    try:
        yield
    finally:
        _earlier.reset(token)


def earlier_runs() -> tuple[str, ...]:
    """Names of the runs that the one under way resumes, the latest first. Empty for a run from the start.

    For probes of what a run itself changes.
    """
    return _earlier.get()
