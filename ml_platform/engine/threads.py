"""Threads in which nodes run: each is used again, and none keeps the process from ending.

A pool of the standard library waits at the end of the process for a call that nothing can interrupt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

Call = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


class NodeThreads:
    """At most `most` threads; one is started only when all others are busy."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call it in a thread, at once or when one is free. From one thread only."""
        future: Future[Any] = Future()
        self._calls.put((future, call, arguments))
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
            thread = threading.Thread(target=self._serve, name=f"node-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def close(self, *, wait: bool) -> None:
        """Let the threads end. Without `wait`, those that are busy end after their call."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _serve(self) -> None:
        while (asked := self._calls.get()) is not None:
            _answer(*asked)
            del asked  # an idle thread holds no output
            self._idle.release()


def _answer(future: Future[Any], call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call(*arguments)
    except BaseException as error:  # noqa: BLE001  (whatever it is belongs to who asked)
        future.set_exception(error)
    else:
        future.set_result(result)
