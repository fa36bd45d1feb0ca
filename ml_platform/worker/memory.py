"""How a process that is fed keeps its memory."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Of glibc's `mallopt`."""
_KEPT_BYTES = 64 << 20
_LARGEST = 1 << 30


def keep_freed_memory() -> None:
    """Have what one chunk freed serve the next one.

    glibc gives each array of megabytes back at once and asks for new pages for the next; the kernel clears
    them one by one, which takes longer than to fill them with rows. TensorFlow has it do so on Python 3.11,
    from each time on that it sets up a generator: call this within the generator. Where there is no
    `mallopt`, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST)
    mallopt(_TRIM_THRESHOLD, _LARGEST)
    mallopt(_TOP_PAD, _KEPT_BYTES)
