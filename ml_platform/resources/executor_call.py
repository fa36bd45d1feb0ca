"""Functions that run on the executors of a Spark application, each in a slot of its own.

A Spark job costs as much as a short function takes. So a Spark task takes one function after the other, over
a connection that it opens to the driver, and ends when there is none for a moment.
"""

from __future__ import annotations

import itertools
import pickle
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from ml_platform.errors import InfrastructureError
from ml_platform.resources.horovod.listener import Listener
from ml_platform.resources.planning import at_work
from ml_platform.worker.channel import KEY_BYTES, Channel
from ml_platform.worker.functions import Serve
from ml_platform.worker.handshake import Caller
from ml_platform.worker.keeper import DriverAddress
from ml_platform.worker.messages import Job, Result

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

T = TypeVar("T")
IDLE_S = 0.2
"""A task without a function keeps its slot for so long, and half as long again at most."""
AGE_S = 10.0
"""A task that has taken functions for so long makes room where other jobs are under way."""
WAKE_S = 0.2
END_S = 10.0
"""Spark says within this time why a task has ended."""


def call_on_executor(spark: SparkSession, function: Callable[[], T]) -> T:
    """Call a function where a Spark task runs. From several threads: side by side, as slots allow.

    Args:
        spark: With that of a task, the call ends when the task is cancelled; with another, when the jobs of
            the thread are.
        function: What it needs travels with it; its result must be picklable.
    Raises:
        Exception: What the function raised. Spark's own errors where the executor was lost.
    """
    import cloudpickle  # type: ignore[import-untyped]

    from ml_platform.resources.late_session import LateSession

    if isinstance(spark, LateSession):
        context, group = spark.root.sparkContext, spark.job_group
    else:
        context = spark.sparkContext
        group = context.getLocalProperty("spark.jobGroup.id") or ""
    is_error, found = pickle.loads(_calls_of(context).call(cloudpickle.dumps(function), group))
    if is_error:
        raise found
    return found  # type: ignore[no-any-return]


def cancel_calls(context: SparkContext, group: str) -> None:
    """End the functions that were called for this job group, and those that still would be."""
    calls = _known().get(context)
    if calls is not None:
        calls.cancel(group)


def end_calls(context: SparkContext) -> None:
    """The application ends: so do the tasks that wait for functions."""
    calls = _known().pop(context, None)
    if calls is not None:
        calls.close()


@dataclass(eq=False)
class _Task:
    """A Spark task that takes functions."""

    number: int
    group: str
    """Its own job group."""
    since: float = 0.0
    """When it had its slot, or last looked for other jobs, by the monotonic clock."""
    user: str = ""
    """Job group for which it runs a function."""
    channel: Channel | None = None
    idle_since: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None


class ExecutorCalls:
    """The tasks of one application, from the first call to its end. Safe to use from several threads."""

    def __init__(self, context: SparkContext) -> None:
        settings = context.getConf()
        host = str(settings.get("spark.driver.host"))
        key = secrets.token_bytes(KEY_BYTES)
        listens_at = str(settings.get("spark.driver.bindAddress", host))
        self._context = context
        self._listener = Listener(listens_at, key, self._arrived)
        self._driver = DriverAddress(host, self._listener.port, key)
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._sweeper: threading.Thread | None = None
        self._tasks: dict[int, _Task] = {}
        self._idle: list[_Task] = []
        self._cancelled: set[str] = set()
        self._waiting = 0
        self._failed: list[Exception] = []
        """What Spark said of tasks that never came, for those who wait."""

    def call(self, function: bytes, group: str) -> bytes:
        """Have a pickled function called for a job group; its pickled answer. Raises where Spark failed."""
        task = self._taken(group)
        assert task.channel is not None
        try:
            task.channel.send(Job(0, "call", function, {}))
            answer = task.channel.receive()
        except (EOFError, OSError) as error:
            raise self._why_ended(task) from error
        except BaseException:
            self._end(task)
            raise
        assert isinstance(answer, Result)
        self._give_back(task)
        return answer.payload

    def cancel(self, group: str) -> None:
        """End what was called for this job group, and let nothing more be called for it."""
        with self._changed:
            self._cancelled.add(group)
            used = [task for task in self._tasks.values() if task.user == group]
            self._changed.notify_all()
        for task in used:
            self._end(task)

    def close(self) -> None:
        """End the tasks that have begun, and wait for it. Those that wait for a slot end with Spark."""
        self._closed.set()
        self._listener.close()
        with self._changed:
            begun = [task for task in self._tasks.values() if task.channel is not None]
        for task in begun:
            _hang_up(task)
        for task in begun:
            task.ended.wait(END_S)

    # ── Which task ───────────────────────────────────────────────────────────────────────────────

    def _taken(self, group: str) -> _Task:
        """A task that waits for a function; others are started where more wait than are coming."""
        with self._changed:
            self._waiting += 1
            try:
                while not self._idle or group in self._cancelled:
                    self._wait_for_one(group)
            finally:
                self._waiting -= 1
                del self._failed[self._waiting :]
            task = self._idle.pop()
            task.user = group
            return task

    def _wait_for_one(self, group: str) -> None:
        if group in self._cancelled:
            raise InfrastructureError(f"a function was not called: job group {group} was cancelled")
        if self._failed:
            raise self._failed.pop()
        if sum(task.channel is None for task in self._tasks.values()) < self._waiting:
            self._start()
        self._changed.wait(WAKE_S)  # a wait without an end could not be interrupted

    def _start(self) -> None:
        number = next(self._numbers)
        task = _Task(number, f"functions/{secrets.token_hex(4)}")
        self._tasks[number] = task
        if self._sweeper is None:
            self._sweeper = threading.Thread(target=self._retire_idle, name="functions", daemon=True)
            self._sweeper.start()
        threading.Thread(target=self._run, args=(task,), name=f"functions-{number}", daemon=True).start()

    def _run(self, task: _Task) -> None:
        """The Spark job behind a task, as long as it lasts."""
        try:
            with at_work():
                self._context.setJobGroup(task.group, "functions", interruptOnCancel=True)
                # An RDD: a query would be planned first, which costs the JVM more than all the rest.
                one = self._context.parallelize([0], 1)
                one.mapPartitions(Serve(self._driver, task.number)).collect()
        except Exception as error:  # noqa: BLE001  (who called raises it)
            task.error = error
        finally:
            _hang_up(task)
            with self._changed:
                del self._tasks[task.number]
                if task in self._idle:
                    self._idle.remove(task)
                if task.error is not None and task.channel is None and self._waiting > len(self._failed):
                    self._failed.append(task.error)
                task.ended.set()
                self._changed.notify_all()

    def _arrived(self, caller: Caller, channel: Channel) -> None:
        with self._changed:
            task = self._tasks.get(caller.number)
            if task is None or task.channel is not None:  # one that Spark runs again: nobody waits for it
                channel.close()
                return
            task.channel, task.since = channel, time.monotonic()
            self._wait(task)

    def _give_back(self, task: _Task) -> None:
        is_wanted = self._is_wanted(task)
        with self._changed:
            task.user = ""
            if is_wanted:
                _hang_up(task)
            else:
                self._wait(task)

    def _is_wanted(self, task: _Task) -> bool:
        """Whether its slot shall go to other jobs of the application now."""
        now = time.monotonic()
        if now - task.since < AGE_S:
            return False
        task.since = now
        try:
            under_way = len(self._context.statusTracker().getActiveJobsIds())
        except Exception:  # noqa: BLE001  (the application ends; the function's answer is there)
            return True
        return under_way > len(self._tasks)

    def _wait(self, task: _Task) -> None:
        self._idle.append(task)
        task.idle_since = time.monotonic()
        self._changed.notify_all()

    def _retire_idle(self) -> None:
        """Hang up on tasks without a function, as long as there are tasks. Timers would be a thread each."""
        while not self._closed.wait(IDLE_S / 2):
            with self._changed:
                if not self._tasks:
                    self._sweeper = None
                    return
                for task in [one for one in self._idle if time.monotonic() - one.idle_since >= IDLE_S]:
                    self._idle.remove(task)
                    _hang_up(task)

    def _end(self, task: _Task) -> None:
        """Have Spark end it, whatever it does."""
        if self._context._jsc is not None:
            self._context._jsc.sc().cancelJobGroup(task.group)

    def _why_ended(self, task: _Task) -> Exception:
        if not task.ended.wait(END_S):
            self._end(task)
        if task.error is not None:
            return task.error
        return InfrastructureError("the Spark task that ran a function has ended", got="no answer")


def _hang_up(task: _Task) -> None:
    if task.channel is not None:
        task.channel.close()


_making = threading.Lock()


@cache
def _known() -> dict[SparkContext, ExecutorCalls]:
    """By application. Behind a function: what it holds at the moment is no part of a key."""
    return {}


def _calls_of(context: SparkContext) -> ExecutorCalls:
    with _making:
        calls = _known().get(context)
        if calls is None:
            calls = _known()[context] = ExecutorCalls(context)
        return calls
