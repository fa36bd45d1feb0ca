"""What a person sees while a dag runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ml_platform.engine.events import TaskEvent

_MARKS = {
    "waiting": ("·", "dim"),
    "running": ("▶", "bold cyan"),
    "done": ("✓", "green"),
    "cached": ("✓", "dim green"),
    "failed": ("✗", "bold red"),
    "skipped": ("–", "dim"),
}
_QUIET_S = 5.0


@contextmanager
def shown(console: Console) -> Iterator[Callable[[TaskEvent], None]]:
    """A watcher that draws on this console for as long as the block runs."""
    if not console.is_terminal:
        yield PlainLines(console.file)
        return
    table = LiveTable()
    with Live(table, console=console, refresh_per_second=5, transient=False):
        yield table


class PlainLines:
    """One line per change of state, and per message that says something new; numbers that move at most every
    few seconds."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._last: dict[str, tuple[float, str]] = {}

    def __call__(self, event: TaskEvent) -> None:
        now = time.monotonic()
        progress = event.state == "running" and bool(event.message)
        words = re.sub(r"\d+", "", event.message)
        last, said = self._last.get(event.node, (0.0, ""))
        if event.state == "waiting" or (progress and now - last < _QUIET_S and words == said):
            return
        self._last[event.node] = now, words
        seconds = f" {event.seconds:6.1f} s" if event.state in ("done", "failed") or progress else ""
        text = f"  {event.message}" if event.message else ""
        stamp = datetime.now().astimezone().strftime("%H:%M:%S")
        # Whoever was reading may have left (`… 2>&1 | head`): no reason to stop the work.
        with suppress(OSError):
            print(f"{stamp} {event.node:<24} {event.state:<8}{seconds}{text}", file=self._file, flush=True)


class LiveTable:
    """All tasks of the run with state, elapsed time and progress; redrawn as time passes."""

    def __init__(self) -> None:
        self._events: dict[str, TaskEvent] = {}
        self._began: dict[str, float] = {}

    def __call__(self, event: TaskEvent) -> None:
        if event.state == "running":
            self._began.setdefault(event.node, time.monotonic())
        self._events[event.node] = event

    def __rich__(self) -> Table:
        run = next((event.run for event in self._events.values()), "starting")
        table = Table(
            title=f"run {run}", title_justify="left", box=None, padding=(0, 2, 0, 0), show_header=False
        )
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", width=8)
        table.add_column(width=12)
        table.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
        for event in list(self._events.values()):
            mark, style = _MARKS[event.state]
            bar = ProgressBar(total=event.total, completed=event.done or 0) if self._moves(event) else ""
            message = event.message if event.state in ("running", "failed", "cached") else ""
            table.add_row(Text(mark, style), Text(event.node, style), self._elapsed(event), bar, message)
        return table

    @staticmethod
    def _moves(event: TaskEvent) -> bool:
        return event.state == "running" and event.total is not None

    def _elapsed(self, event: TaskEvent) -> str:
        if event.state in ("waiting", "skipped", "cached"):
            return ""
        running = event.state == "running"
        seconds = time.monotonic() - self._began[event.node] if running else event.seconds
        return f"{seconds:.1f} s"
