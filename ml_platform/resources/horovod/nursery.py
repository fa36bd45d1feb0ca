"""Ranks of this machine, forked from a process of this driver that has imported TensorFlow once."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from ml_platform.resources.horovod.plan import RankPlan
from ml_platform.resources.horovod_build import horovod_available, installed_tensorflow
from ml_platform.worker.nursery import become_nursery
from ml_platform.worker.spawn import key_pipe

_LATE = ("HOROVOD_", "NCCL_", "ML_PLATFORM_", "MLFLOW_", "_MLFLOW_", "PREFECT_", "PYTEST_", "TMPDIR")
"""Variables that no import of a rank reads: it gets its own after the fork, and so in time."""
_END_TIMEOUT_S = 5.0
_LATE_S = 60.0
"""A nursery that has forked nothing for so long, although it was asked to, gets no more orders."""


def can_fork(plan: RankPlan) -> bool:
    """Whether a rank can come from a nursery: one that imports TensorFlow for processors, on Linux.

    TensorFlow for GPUs loads the driver's library, and nobody promises that a fork is fine after that.
    """
    preloads = plan.command[1:3] == ("-m", "ml_platform.worker") and "--no-preload" not in plan.command
    tensorflow = installed_tensorflow()
    built_for_processors = tensorflow is not None and "cpu" in tensorflow.name
    return preloads and built_for_processors and sys.platform == "linux"


def fork_rank(plan: RankPlan, connection: socket.socket, key: bytes, *, output: IO[bytes]) -> ForkedRank:
    """Have a rank forked, as soon as the imports are done: by the nursery that is there, or by a new one.

    Args:
        connection: The rank's end. The caller closes its own copy.
        key: Goes through a pipe, which the nursery does not read.
        output: The rank's stdout and stderr; and the nursery's, if it is new.
    Raises:
        OSError: No process can be started.
    """
    kind = _kind(plan.command[0], plan.environment)
    order = {"words": plan.command[3:], "environment": {**os.environ, **plan.environment}}
    with _choosing:
        if _nursery is not None and _nursery.kind == kind and not _nursery.late:
            with suppress(ConnectionError):  # it was killed
                return _nursery.fork(order, connection, key, output)
        return _new_nursery(kind, output).fork(order, connection, key, output)


def prepare_nursery(plan: RankPlan) -> None:
    """Begin the imports of such ranks, before any is asked for. What goes wrong is said when one is.

    Args:
        plan: Its log gets what the imports say.
    """
    if not can_fork(plan):
        return
    kind = _kind(plan.command[0], plan.environment)
    with _choosing, suppress(OSError):
        if _nursery is None or _nursery.kind != kind or _nursery.late:
            plan.log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with plan.log_file.open("ab") as log:
                _new_nursery(kind, log)


def _new_nursery(kind: _Kind, output: IO[bytes]) -> _Nursery:
    """In the place of the one that is there, which stays if no process can be started."""
    global _nursery
    new = _Nursery(kind, partial(_spawned, kind, output))
    if _nursery is not None:
        _nursery.retire()
    _nursery = new
    return new


def fork_ahead(variables: Mapping[str, str]) -> None:
    """Have the nursery of this process now, as a fork of it that need not import anything.

    For a process that has done the imports itself, and has as yet no thread and no rank.

    Args:
        variables: What ranks have in their environment beside this process's own.
    """
    global _nursery
    _nursery = _Nursery(_kind(sys.executable, variables), _forked)


def variables_of_ranks() -> dict[str, str] | None:
    """What the ranks of this process import with, beside its own environment. None: it has had no ranks."""
    if _nursery is None:
        return None
    return {name: value for name, value in _nursery.kind.environment if os.environ.get(name) != value}


class ForkedRank:
    """A rank that a nursery forks, now or when its imports are done.

    Args:
        news: Reading end of a pipe. Through it come the rank's number, then its exit code, a line each.
        unborn: Called with the seconds that passed, if it is not wanted any more and was never forked.
    """

    def __init__(self, news: int, unborn: Callable[[float], None]) -> None:
        self._unborn, self._asked = unborn, time.monotonic()
        os.set_blocking(news, False)
        self._news = os.fdopen(news, "rb", buffering=0)
        self._heard = b""
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        told = self._told(0)
        return int(told[0]) if told else 0

    def alive(self) -> bool:
        self._told(0)
        return not self._news.closed

    def exit_code(self, timeout_s: float) -> int | None:
        told = self._told(timeout_s)
        return int(told[1]) if len(told) > 1 else None

    def flush_log(self) -> None:
        """The log file is the rank's own stdout."""

    def kill(self) -> None:
        if not (pid := self.pid):
            # It was not forked yet, and will find that its driver hung up: nobody waits for it.
            with self._lock:
                self._news.close()
            self._unborn(time.monotonic() - self._asked)
        elif not self._news.closed:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _told(self, timeout_s: float) -> list[bytes]:
        """All news, after waiting until the rank has ended or the time is over."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while not self._news.closed and _readable(self._news, deadline - time.monotonic()):
                text = self._news.read(64)
                if text:
                    self._heard += text
                else:  # that was all, or the nursery is gone and its ranks with it
                    self._news.close()
            return self._heard.split()


def _readable(file: IO[bytes], timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(file.fileno(), select.POLLIN)
    return bool(poll.poll(max(0, timeout_s) * 1000))


class _Kind(NamedTuple):
    """Ranks of one kind can come from one nursery."""

    driver: int
    python: str
    folder: str
    with_horovod: bool
    environment: frozenset[tuple[str, str]]


def _kind(python: str, variables: Mapping[str, str]) -> _Kind:
    environment = {**os.environ, **variables}
    return _Kind(
        driver=os.getpid(),
        python=python,
        folder=str(Path.cwd()),
        with_horovod=horovod_available().ok,
        environment=frozenset((k, v) for k, v in environment.items() if not k.startswith(_LATE)),
    )


class _Process(Protocol):
    """Leads a process group."""

    pid: int

    def wait(self) -> int: ...


class _Nursery:
    """The driver's half. The process ends with its last rank once it is retired, or with the driver.

    Args:
        start: Starts the process, with its end of the connection.
    """

    def __init__(self, kind: _Kind, start: Callable[[socket.socket], _Process]) -> None:
        self.kind = kind
        self._orders, theirs = socket.socketpair()
        self._started, self._ended = threading.Event(), threading.Event()
        self._process: _Process | None = None
        self.late = False
        self._faults: list[Exception] = []
        # The kernel ends a process with the *thread* that started it, so one lives as long as the nursery.
        threading.Thread(target=self._keep, args=(theirs, start), name="rank-nursery", daemon=True).start()
        self._started.wait()
        theirs.close()
        if self._faults:
            self.retire()
            raise self._faults[0]

    def fork(self, order: object, connection: socket.socket, key: bytes, output: IO[bytes]) -> ForkedRank:
        with ExitStack() as stack:
            text = os.memfd_create("order")
            stack.callback(os.close, text)
            os.write(text, json.dumps(order).encode())
            key_out = key_pipe(key)
            stack.callback(os.close, key_out)
            news_out, news_in = os.pipe()
            stack.callback(os.close, news_in)
            descriptors = [text, connection.fileno(), key_out, output.fileno(), news_in]
            try:
                socket.send_fds(self._orders, [b"."], descriptors)
            except OSError:
                os.close(news_out)
                raise
            return ForkedRank(news_out, self._doubt)

    def _doubt(self, waited_s: float) -> None:
        """It was stopped, say, or its imports hang. What it has forked lives on."""
        self.late = self.late or waited_s > _LATE_S

    def retire(self) -> None:
        """No more orders."""
        self._orders.close()

    def end(self) -> None:
        """Now, with its ranks, and with what its imports have started: TensorFlow's ask `uname`."""
        self.retire()
        if self._process is not None and not self._ended.is_set():
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.killpg(self._process.pid, signal.SIGKILL)
            self._ended.wait(_END_TIMEOUT_S)

    def _keep(self, theirs: socket.socket, start: Callable[[socket.socket], _Process]) -> None:
        try:
            self._process = start(theirs)
        except Exception as error:  # noqa: BLE001  (whoever waits for the start raises it)
            self._faults.append(error)
        self._started.set()
        if self._process is not None:
            self._process.wait()
        self._ended.set()


def _spawned(kind: _Kind, output: IO[bytes], theirs: socket.socket) -> _Process:
    options = {"parent": os.getpid(), "orders-fd": theirs.fileno()}
    words = [f"--{name}={value}" for name, value in options.items()]
    words += ["--with-horovod"] if kind.with_horovod else []
    return subprocess.Popen(
        [kind.python, "-m", "ml_platform.worker.nursery", *words],
        env={**os.environ, **dict(kind.environment)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=[theirs.fileno()],
        process_group=0,
    )


def _forked(theirs: socket.socket) -> _Process:
    driver = os.getpid()
    if (pid := os.fork()) == 0:
        become_nursery(theirs, parent=driver)
    with suppress(OSError):  # the fork did it first, or has ended
        os.setpgid(pid, pid)
    return _Fork(pid)


class _Fork:
    """A child that was forked, as `Popen` has those that it started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


_nursery: _Nursery | None = None
_choosing = threading.Lock()


@atexit.register
def _end() -> None:
    if _nursery is not None and _nursery.kind.driver == os.getpid():  # not in a process that was forked
        _nursery.end()
