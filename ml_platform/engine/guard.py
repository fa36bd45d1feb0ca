"""A trap for what a dag's own function tries while it is being declared for a plan.

The doors of `resources.planning` close what goes through us. The rest is the user's own code: an audit
hook and a limit on the size of files stop it, and the process ends at once, as an exception could be caught.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_platform.resources.planning import end_process, other_threads

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
        self.bystanders: frozenset[int] = frozenset()

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.armed or threading.get_ident() in self.bystanders:
            return
        if event in _EVENTS or (event == "open" and _writes(args)):
            self.armed = False
            shown = " ".join(map(str, (event, *args[:1])))
            end_process(f"its function did so itself ({_users_line()})", got=shown)


_trap = _Trap()


@contextmanager
def trapped() -> Iterator[None]:
    """Whatever code inside, or a thread that it starts, does to the world ends the process."""
    if not _trap.installed:
        sys.addaudithook(_trap.hook)
        _trap.installed = True
    _trap.bystanders = other_threads()
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    with _no_file_grows():
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
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGXFSZ, signal.SIG_DFL) if main else None
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        if main:
            signal.signal(signal.SIGXFSZ, before)


def _writes(args: tuple[Any, ...]) -> bool:
    _, mode, flags = args
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(isinstance(flags, int) and flags & _WRITING)


def _users_line() -> str:
    ours = (sys.prefix, sys.base_prefix, "<", _HERE)
    frames = [frame for frame in traceback.extract_stack() if not frame.filename.startswith(ours)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown line"
