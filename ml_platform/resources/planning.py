"""Planning runs nothing: a flag of the whole process, and every door of ours that looks at it.

A context variable would not do: a thread that user code starts has none. Threads that were there before
the planning began are let through: they are other runs, or Prefect's reporting.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from ml_platform.errors import GraphError

_bystanders: frozenset[int] | None = None
before_end: list[Callable[[], None]] = []
"""What must be undone before the process can say why it ends."""


@contextmanager
def planning() -> Iterator[None]:
    """Until the end of the block, what opens a door ends the process."""
    global _bystanders
    before, _bystanders = _bystanders, other_threads()
    try:
        yield
    finally:
        _bystanders = before


def refuse_while_planning(what: str) -> None:
    """End the process if it only plans. An exception would not do: user code could catch it."""
    if _bystanders is not None and threading.get_ident() not in _bystanders:
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
