"""Single flight: on one machine, equal work is done once; who comes second waits and finds the result.

One file for all keys: a key is a byte of it, locked for as long as an open file says so. The kernel lets
go when the holder ends, however that ends, and nothing is left to clean up.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ml_platform.store.locks import lock_file

POLL_S = 0.1


@contextmanager
def flight(own: str, inputs: str, *, on_wait: Callable[[], None]) -> Iterator[bool]:
    """Hold a key while the code inside runs. Yields whether somebody else had it before.

    Args:
        on_wait: Called once if it is taken.
    Raises:
        StoreError: The lock file cannot be opened.
    """
    with lock_file("flights.lock") as file:
        position = (int(own[:16], 16) ^ int(inputs[:16], 16)) >> 2
        waited = False
        while not _taken(file, position):
            if not waited:
                on_wait()
            waited = True
            time.sleep(POLL_S)
        yield waited


def _taken(file: int, position: int) -> bool:
    """Lock one byte for this open file alone: threads of a process exclude each other, too."""
    wanted = struct.pack("hhqqhxxxxxx", fcntl.F_WRLCK, os.SEEK_SET, position, 1, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):
        return False
    return True
