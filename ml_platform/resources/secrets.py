"""Secrets by name: from the environment, else from whoever keeps them where this code runs.

The engine lets tasks, probes and preflights ask Prefect. No key sees a secret, nor who keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Keeper = Callable[[str], str | None]
"""The secret of a name; None where there is none."""

_keeper: ContextVar[Keeper | None] = ContextVar("keeper", default=None)


def secret(name: str) -> str | None:
    """The variable of this name, else what the keeper has; None where neither has any."""
    keeper = _keeper.get()
    return os.environ.get(name) or (keeper(name) if keeper is not None else None)


@contextmanager
def kept_by(keeper: Keeper) -> Iterator[None]:
    """Inside, `secret` asks this keeper where the environment has none."""
    token = _keeper.set(keeper)
    try:
        yield
    finally:
        _keeper.reset(token)
