"""Ties a rank's life to its driver's: no rank outlives whoever started it, however that ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
DRIVER_IS_GONE = 75
"""Exit code of a rank whose driver is gone."""


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    The second line of defence: the first is that the control connection closes. It works on Linux alone;
    elsewhere the connection must do.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have ended before the call: then no signal would ever come.
    if os.getppid() != parent:
        os._exit(DRIVER_IS_GONE)


def end_now() -> NoReturn:
    """End at once, whatever other threads do: TensorFlow and Horovod may hold them for good."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(DRIVER_IS_GONE)
