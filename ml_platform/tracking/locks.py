"""A lock that processes of one machine share. It ends with its holder, however that ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_platform.errors import TrackingError

POLL_S = 0.05


@contextmanager
def exclusive(path: Path, *, what: str, timeout_s: float = 60) -> Iterator[None]:
    """Hold the lock file `path` while the code inside runs; one holder at a time, threads included.

    Raises:
        TrackingError: The file cannot be opened, or somebody else held it for `timeout_s` seconds.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TrackingError(f"{what}: lock {path} cannot be opened", got=error.strerror) from error
    try:
        _wait(file, path, what, timeout_s)
        yield
    finally:
        os.close(file)


def _wait(file: int, path: Path, what: str, timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise TrackingError(
                    f"{what}: another process holds the lock",
                    wanted=f"the lock {path} within {timeout_s:g} s",
                    hint=f"see who holds it: fuser {path}",
                ) from error
        time.sleep(POLL_S)
