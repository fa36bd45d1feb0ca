"""A trap for what a dag's own function tries while it is being declared for a plan.

The doors of `resources.planning` close what goes through us. The rest is the user's own code: an audit
hook and a limit on the size of files stop it, and the process ends at once, as an exception could be caught.
"""

from __future__ import annotations

import os
import resource
import signal
import stat
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_platform.resources.planning import anyone_at_work, before_end, end_process, only_plans, tracing

_EVENTS = frozenset(
    [
        *("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"),
        *("pty.spawn", "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "sqlite3.connect"),
        *("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
        *("os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.copyfile", "shutil.move"),
    ]
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_HERE = str(Path(__file__).parent)


class _Trap:
    """One hook per process: it cannot be removed, so it obeys `armed`."""

    def __init__(self) -> None:
        self.armed = False
        self.installed = False

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.armed or not only_plans():
            return
        if event in _EVENTS or (event == "open" and _writes(args)):
            self.armed = False
            shown = " ".join(map(str, (event, *args[:1])))
            end_process(f"its function did so itself ({_users_line()})", got=shown)


_trap = _Trap()


@contextmanager
def trapped() -> Iterator[None]:
    """Whatever code inside, or a thread that it starts, does to the world ends the process.

    Used while planning: the trap is for threads that only plan.
    """
    if not _trap.installed:
        sys.addaudithook(_trap.hook)
        _trap.installed = True
    with tracing, _output_passes(), _no_file_grows():
        bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        _trap.armed = True
        try:
            yield
        finally:
            _trap.armed = False
            sys.dont_write_bytecode = bytecode


@contextmanager
def _no_file_grows() -> Iterator[None]:
    """C++ libraries open files without an audit event: the kernel ends who writes to one.

    Python ignores its signal, which only the main thread may change; elsewhere the write fails instead.
    The limit is one for all threads, so it is not set while a run is at work in this process.
    """
    if anyone_at_work():
        yield
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGXFSZ, signal.SIG_DFL) if main else None

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    before_end.append(lift)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        lift()
        before_end.remove(lift)
        if main:
            signal.signal(signal.SIGXFSZ, before)


@contextmanager
def _output_passes() -> Iterator[None]:
    """Printing is no crime: where stdout or stderr is a file, what is said is written once files may grow."""
    kept = {fd: os.dup(fd) for fd in (1, 2) if stat.S_ISREG(os.fstat(fd).st_mode)}
    pipes = {fd: os.pipe() for fd in kept}
    readers = {fd: ThreadPoolExecutor(1) for fd in kept}
    said = {fd: readers[fd].submit(_read_all, pipes[fd][0]) for fd in kept}

    def put_back() -> None:
        for fd, saved in kept.items():
            os.dup2(saved, fd)

    for fd in kept:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(pipes[fd][1], fd)
        os.close(pipes[fd][1])
    before_end.append(put_back)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        before_end.remove(put_back)
        put_back()
        for fd, saved in kept.items():
            os.write(fd, said[fd].result())
            readers[fd].shutdown()
            os.close(pipes[fd][0])
            os.close(saved)


def _read_all(pipe: int) -> bytes:
    parts = []
    while part := os.read(pipe, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def _writes(args: tuple[Any, ...]) -> bool:
    _, mode, flags = args
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(isinstance(flags, int) and flags & _WRITING)


def _users_line() -> str:
    ours = (sys.prefix, sys.base_prefix, "<", _HERE)
    frames = [frame for frame in traceback.extract_stack() if not frame.filename.startswith(ours)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown line"
