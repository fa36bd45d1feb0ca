"""Commands about runs that were: `runs`, `show RUN`, `diff RUN RUN`."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from ml_platform.cli.printing import printer
from ml_platform.engine.compare import Difference, compare
from ml_platform.store.records import read_run, run_names

Json = Annotated[bool, Parameter(negative="", help="Print JSON.")]
SHOWN_RUNS = 20


def runs(dag: Annotated[str, Parameter(parse=False)], *, json: Json = False, all: bool = False) -> int:  # noqa: A002
    """List the runs of this dag, newest first."""
    found = [record for record in map(_readable, run_names()) if record and record.get("dag") == dag]
    shown = [_summary(record) for record in (found if all else found[:SHOWN_RUNS])]
    if json:
        print(json_module.dumps(shown, indent=2))
        return 0
    table = _table("run", "started", "ran", "cached", "failed", "state")
    for row in shown:
        counts = (str(row[name]) for name in ("ran", "cached", "failed"))
        table.add_row(row["run"], _local(row["started"]), *counts, row["state"])
    printer().print(table if shown else "no runs yet")
    return 0


def show(dag: Annotated[str, Parameter(parse=False)], run: str, /, *, json: Json = False) -> int:
    """What a run did: every task with its state, time and the reason why it ran or did not."""
    record = read_run(run)
    if json:
        print(json_module.dumps(record, indent=2))
        return 0
    table = _table("task", "state", "seconds", "reason")
    for node in record["nodes"]:
        seconds = f"{node.get('seconds', 0):.1f}" if node.get("state") != "cached" else ""
        table.add_row(
            node["node"], node.get("state", ""), seconds, node.get("error") or node.get("reason", "")
        )
    console = printer()
    console.print(f"run {run} of {record.get('dag')}: {record.get('state')}", markup=False)
    console.print(table)
    return 0


def diff(dag: Annotated[str, Parameter(parse=False)], run: str, other: str, /, *, json: Json = False) -> int:
    """Why two runs differ: code, parameters, data and versions, task by task."""
    found = compare(read_run(run), read_run(other))
    if json:
        print(json_module.dumps([difference.model_dump(mode="json") for difference in found], indent=2))
        return 0
    console = printer()
    for line in _lines(found) if found else ["no task was made of anything else"]:
        console.print(line, markup=False, soft_wrap=True)
    return 0


def _lines(found: list[Difference]) -> Iterator[str]:
    for difference in found:
        yield difference.node
        yield from (f"  {change}" for change in difference.changes)


def _readable(run: str) -> dict[str, Any] | None:
    try:
        return read_run(run)
    except Exception:  # noqa: BLE001  (one damaged record must not hide the others)
        return None


def _summary(record: Mapping[str, Any]) -> dict[str, Any]:
    states = [node.get("state") for node in record["nodes"]]
    return {
        "run": record.get("run"),
        "state": record.get("state"),
        "started": record.get("started", ""),
        "ran": states.count("completed"),
        "cached": states.count("cached"),
        "failed": states.count("failed"),
    }


def _local(started: str) -> str:
    """To the minute, by the clock of this machine."""
    try:
        return datetime.fromisoformat(started).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return started


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name in ("run", "started"))
    return table
