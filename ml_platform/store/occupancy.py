"""Who uses the store: runs side by side, or garbage collection alone.

A run finds results long before its record names them, and may write a data set hours before a result does. So
nothing is removed while one is under way in this folder. The kernel lets go when a process ends.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from ml_platform.errors import StoreError
from ml_platform.store.location import home
from ml_platform.store.locks import lock_file


@contextmanager
def occupied() -> Iterator[None]:
    """A run is under way inside. Waits while garbage is removed.

    Raises:
        StoreError: The lock file cannot be opened.
    """
    with _locked(fcntl.LOCK_SH):
        yield


@contextmanager
def alone() -> Iterator[None]:
    """No run of this folder is under way inside, and none begins.

    Raises:
        StoreError: One is under way.
    """
    try:
        with _locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield
    except BlockingIOError as error:
        raise StoreError(
            f"a run is under way in {home()}, so nothing was removed",
            wanted="no run, since one may need what no record names yet",
            hint="try again when it has ended",
        ) from error


@contextmanager
def _locked(how: int) -> Iterator[None]:
    with lock_file("runs.lock") as file:
        fcntl.flock(file, how)
        yield
