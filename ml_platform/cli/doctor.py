"""`python -m ml_platform doctor`: would a run work here, and if not, why, and what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_platform.cli.checks import Check, Examiner
from ml_platform.cli.machine_checks import (
    check_cores,
    check_disk,
    check_gpus,
    check_horovod,
    check_java,
    check_memory,
)
from ml_platform.cli.server_checks import check_mlflow, check_ports, check_prefect
from ml_platform.cli.version_checks import check_python, check_versions

EXAMINERS: tuple[Examiner, ...] = (
    check_python,
    check_versions,
    check_java,
    check_horovod,
    check_cores,
    check_memory,
    check_disk,
    check_gpus,
    check_ports,
    check_prefect,
    check_mlflow,
)
WIDTH = 100
STYLES = {"ok": "green", "warn": "yellow", "block": "bold red"}


def examine() -> list[Check]:
    """All checks, in order. They wait for programs and servers side by side."""
    with ThreadPoolExecutor(len(EXAMINERS)) as threads:
        found = [threads.submit(examiner) for examiner in EXAMINERS]
        return [check for future in found for check in future.result()]


def to_json(checks: Sequence[Check]) -> str:
    """One object: whether a run would be blocked, and every check."""
    blocked = any(check.status == "block" for check in checks)
    return json.dumps({"ok": not blocked, "checks": [check.model_dump() for check in checks]}, indent=2)


def render(checks: Sequence[Check], console: Console) -> None:
    """A table of at most 100 columns, and one line that sums it up."""
    table = Table(box=None, pad_edge=False, width=min(WIDTH, console.width))
    for title in ("", "check", "found", "wanted"):
        table.add_column(title, overflow="fold", no_wrap=title == "check")
    for check in checks:
        table.add_row(*_row(check))
    console.print(table)
    console.print(_summary(checks))


def _row(check: Check) -> tuple[Text, Text, Text, Text]:
    found = Text(check.found)
    for line in filter(None, (check.reason, check.next_step and f"try: {check.next_step}")):
        found.append(f"\n{line}", style="dim" if check.status == "ok" else STYLES[check.status])
    return Text(check.status, style=STYLES[check.status]), Text(check.name), found, Text(check.wanted)


def _summary(checks: Sequence[Check]) -> Text:
    blocking = [check.name for check in checks if check.status == "block"]
    if blocking:
        return Text(f"a run would fail: {', '.join(blocking)}", style=STYLES["block"])
    warned = [check.name for check in checks if check.status == "warn"]
    return Text(f"ready to run{'; mind ' + ', '.join(warned) if warned else ''}", style=STYLES["ok"])
