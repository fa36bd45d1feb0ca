"""What is being built carries the name of its builder, so that later runs can remove what a dead one left.

A builder is a process: host, number and start, so that a number that is used again is another builder.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from ml_platform.store.folders import local_path, scheme_of
from ml_platform.store.location import data_uri, home

PASSING = ".passing"
"""Folder of the store for objects that live as long as the process that they serve."""

_SCRATCH = "ml-platform-"
_TAG = re.compile(r"by-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)")


_BUILT_AT_HOME = (
    ".*-by-*",
    "history/.*-by-*",
    "runs/*/.*-by-*",
    "evaluations/.*.by-*",
    "backbones/.*.by-*",
    "models/.download-by-*",
    "scratch/*by-*",
)


def tagged(folder: Path) -> list[Path]:
    """Everything below a folder that carries the name of a builder: it is being built, or was."""
    return [path for path in folder.rglob("*by-*") if _TAG.search(path.name)]


def builder() -> str:
    """Names this process inside the name of a file or folder."""
    return f"by-{_host()}-{os.getpid()}-{_own_start(os.getpid())}"


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for the time of a block; after a kill, the next run removes it."""
    return tempfile.TemporaryDirectory(prefix=f"{_SCRATCH}{builder()}-", ignore_cleanup_errors=True)


_runs: list[ExitStack] = []
"""Of those under way in this process; the first holds the temporary folder of all, the last closes it."""
_runs_change = threading.Lock()


@contextmanager
def temporary_files_removed() -> Iterator[None]:
    """What libraries put into the temporary folder inside, here and in processes that are started, goes with
    the block, or after a kill with the next run: they themselves remove it only when they end in peace.

    Blocks of several threads share one folder, as the process has one.
    """
    with _runs_change:
        stack = _runs[0] if _runs else ExitStack()
        if not _runs:
            stack.enter_context(_own_temporary_folder())
        _runs.append(stack)
    try:
        yield
    finally:
        with _runs_change:
            _runs.pop()
            if not _runs:
                stack.close()


@contextmanager
def _own_temporary_folder() -> Iterator[None]:
    before, inherited = tempfile.tempdir, os.environ.get("TMPDIR")
    with scratch_folder() as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        try:
            yield
        finally:
            tempfile.tempdir = before
            os.environ.pop("TMPDIR", None)
            os.environ.update({} if inherited is None else {"TMPDIR": inherited})


def sweep() -> None:
    """Remove what processes of this machine left unfinished when they were killed, as far as it may."""
    temporary = Path(tempfile.gettempdir())
    while temporary.name.startswith(_SCRATCH):
        temporary = temporary.parent
    remove_dead(unfinished(home(), data_uri(), temporary))


def remove_dead(paths: Iterable[Path]) -> None:
    """Remove those of these files and folders whose builder, a process of this machine, is no more."""
    for path in paths:
        if is_dead(path.name) and not _is_needed(path):
            # A store that is read-only now is no reason not to run.
            with suppress(OSError):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def is_dead(name: str) -> bool:
    """Whether this carries the name of a builder that was a process of this machine, and is no more."""
    found = _TAG.search(name)
    return bool(found and found["host"] == _host() and _start(int(found["pid"])) != found["start"])


def _is_needed(path: Path) -> bool:
    """Whether it is the temporary folder of a process that lives: a JVM hears that its driver was killed only
    when it has started, and for want of this folder never would."""
    said = f"TMPDIR={path}".encode()
    return path.name.startswith(_SCRATCH) and any(said in variables for variables in _environments())


def _environments() -> Iterator[list[bytes]]:
    """Of the processes that may be asked."""
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            yield file.read_bytes().split(b"\0")


def unfinished(home: Path, store_uri: str, temporary: Path) -> Iterator[Path]:
    """What is being built, or was when its builder died: in the platform's folder, the store, and beside."""
    yield from temporary.glob(f"{_SCRATCH}by-*")
    for pattern in _BUILT_AT_HOME:
        yield from home.glob(pattern)
    if scheme_of(store_uri) == "file":
        store = local_path(store_uri)
        yield from store.glob("*/*.tmp-by-*")
        yield from store.glob(".results/.building-by-*")
        yield from store.glob(f"{PASSING}/by-*")


@lru_cache(maxsize=1)
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


@lru_cache(maxsize=8)
def _own_start(pid: int) -> str:
    return _start(pid) or "0"


def _start(pid: int) -> str | None:
    """When a process started, in clock ticks since the boot; None when there is none."""
    try:
        # The second field is the name in brackets, which may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
