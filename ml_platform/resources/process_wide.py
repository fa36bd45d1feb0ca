"""What Python and libraries have once for the whole process, for threads that want it their own way.

Saved and put back by each thread for itself, it would be left as the one that ended last found it.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any

Setting = Callable[[], AbstractContextManager[Any]]
Heard = list[Warning | str]


@contextmanager
def while_anyone(name: str, setting: Setting) -> Iterator[None]:
    """The first thread that enters makes a setting, the last that leaves takes it back.

    Args:
        name: What is set. Of those who want it in different ways, the first has its way for all.
        setting: Makes it, and takes it back.
    """
    shared = _shared(name)
    shared.enter(setting)
    try:
        yield
    finally:
        shared.leave()


@contextmanager
def heard(*kinds: type[Warning]) -> Iterator[Heard]:
    """Warnings of these kinds that this thread gives inside the block; nobody sees any other."""
    caught: Heard = []
    with while_anyone("warnings", _kept_back):
        listeners = _listeners().setdefault(threading.get_ident(), [])
        listeners.append((kinds, caught))
        try:
            yield caught
        finally:
            listeners.remove((kinds, caught))


class _Shared:
    def __init__(self) -> None:
        self._users = 0
        self._made = ExitStack()
        self._lock = threading.Lock()

    def enter(self, setting: Setting) -> None:
        with self._lock:
            if not self._users:
                self._made.enter_context(setting())
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._made.close()


# Behind functions: what they hold at the moment is no part of a key.
@cache
def _shared(name: str) -> _Shared:
    return _Shared()


@cache
def _listeners() -> dict[int, list[tuple[tuple[type[Warning], ...], Heard]]]:
    """By thread, the innermost last."""
    return {}


@contextmanager
def _kept_back() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = _hear
        yield


def _hear(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    for kinds, caught in _listeners().get(threading.get_ident(), [])[-1:]:
        if issubclass(category, kinds):
            caught.append(message)
