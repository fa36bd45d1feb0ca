"""Log files of ranks, printed here while they grow."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_LOOK_EVERY_S = 0.2


@contextmanager
def echoed(log_files: Sequence[Path]) -> Iterator[None]:
    """Print what is appended to these files meanwhile, line by line, with the rank in front.

    Args:
        log_files: By rank. They need not exist yet.
    """
    echoes = [_Echo(rank, path) for rank, path in enumerate(log_files)]
    if not echoes:
        yield
        return
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            for echo in echoes:
                echo.print_new()

    # In the caller's context: whoever catches prints (Prefect's log_prints) finds its run there.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(follow,), name="log-echo", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for echo in echoes:
            echo.print_new(all_of_it=True)


class _Echo:
    """One file, from where it ends now."""

    def __init__(self, rank: int, path: Path) -> None:
        self._rank, self._path = rank, path
        self._read = path.stat().st_size if path.exists() else 0

    def print_new(self, *, all_of_it: bool = False) -> None:
        """Print whole lines; at the end also one without an end."""
        for line in self._new(all_of_it).splitlines():
            print(f"[{self._rank}] {line}", flush=True)

    def _new(self, all_of_it: bool) -> str:
        if not self._path.exists():
            return ""
        with self._path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        if not all_of_it:
            data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        return data.decode(errors="replace")
