"""Planning runs nothing: a flag of the whole process, and every door of ours that looks at it.

A context variable would not do: a thread that user code starts has none. Threads that were there before
the planning began are let through: they are other runs, or Prefect's reporting. So are threads that a run
starts meanwhile, which say that they are at work.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NoReturn

from ml_platform.errors import GraphError

_bystanders: list[frozenset[int]] = []
"""For each planning under way, the threads that are none of it."""
_at_work: set[int] = set()
tracing = threading.RLock()
"""Held while a dag's function declares its graph for a plan."""
before_end: list[Callable[[], None]] = []
"""What must be undone before the process can say why it ends."""


@contextmanager
def planning() -> Iterator[None]:
    """Until the end of the block, what opens a door ends the process."""
    here, others = threading.get_ident(), other_threads()
    was_at_work = here in _at_work
    _at_work.discard(here)
    _bystanders.append(others)
    try:
        yield
    finally:
        _bystanders.remove(others)
        if was_at_work:
            _at_work.add(here)


@contextmanager
def at_work() -> Iterator[None]:
    """Until the end of the block, this thread belongs to a run, whatever is planned beside it.

    A run begins when no dag is being traced: the limits of that hold for the whole process.
    """
    here = threading.get_ident()
    already = here in _at_work
    with nullcontext() if _at_work else tracing:
        _at_work.add(here)
    try:
        yield
    finally:
        if not already:
            _at_work.discard(here)


def anyone_at_work() -> bool:
    """Whether a run is under way in this process."""
    return bool(_at_work)


def only_plans() -> bool:
    """Whether this thread belongs to what is only being planned."""
    here = threading.get_ident()
    return here not in _at_work and any(here not in others for others in _bystanders)


def refuse_while_planning(what: str) -> None:
    """End the process if it only plans. An exception would not do: user code could catch it."""
    if only_plans():
        end_process(f"{what} while it was only being planned", got=what)


def end_process(what: str, *, got: str) -> NoReturn:
    """Say it on stderr and end, without running anything else."""
    for undo in reversed(before_end):
        undo()
    error = GraphError(
        f"a dag tried to run something: {what}",
        wanted="calls of tasks, which a plan declares and does not run",
        got=got,
        hint="move it into a task",
    )
    os.write(2, f"GraphError: {error}\n".encode(errors="replace"))
    os._exit(GraphError.exit_code)


def other_threads() -> frozenset[int]:
    """Every thread of this process but this one."""
    here = threading.get_ident()
    idents = (thread.ident for thread in threading.enumerate())
    return frozenset(ident for ident in idents if ident is not None and ident != here)
