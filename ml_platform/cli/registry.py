"""`python -m ml_platform registry`: who was champion of a model, and the way back to an earlier one."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter
from rich.table import Table

from ml_platform.cli.printing import printer

if TYPE_CHECKING:
    from ml_platform.tracking.champions import Reign

registry = cyclopts.App(
    name="registry",
    help="Look after registered models: which version serves, since when, and how to go back.",
)

Flag = Annotated[bool, Parameter(negative="")]


@registry.command
def history(name: str, /, *, json: Flag = False) -> int:
    """List the champions of a model: since when, by which run and verdict, and why.

    The gate of a retrain makes champions, and so does `registry rollback`. The list is kept in MLflow, as
    the registered model NAME.promotions.

    Parameters
    ----------
    name
        Name in the registry: of models:/churn@champion it is churn.
    json
        Print JSON instead of a table.
    """
    _use_running_server()
    from ml_platform.tracking.champions import history as champions
    from ml_platform.tracking.registry import champion_now

    reigns, now = champions(name), champion_now(name)
    if json:
        rows = [{**asdict(reign), "since": reign.since.isoformat(timespec="seconds")} for reign in reigns]
        print(json_format.dumps({"name": name, "champion": now, "history": rows}, indent=2))
        return 0
    printer().print(_table(reigns))
    print(_state(name, now, reigns))
    if len(reigns) > 1:
        print(f"to go back: python -m ml_platform registry rollback {name} --dry-run")
    return 0


@registry.command
def rollback(
    name: str, /, *, to: int | None = None, why: str = "", dry_run: Flag = False, json: Flag = False
) -> int:
    """Make an earlier version champion again.

    Flows that score with models:/NAME@champion use it from their next run on. The version that is left is
    not promoted again by a retrain; `registry rollback NAME --to VERSION` makes it champion again. Of two who
    move the champion at once, one wins, and the other one is told and ends with exit code 4.

    Parameters
    ----------
    name
        Name in the registry: of models:/churn@champion it is churn.
    to
        The version to go back to. Left out: the one that the champion replaced.
    why
        A sentence for those who read the history later.
    dry_run
        Say what would be done, and do nothing.
    json
        Print JSON instead of a sentence.
    """
    _use_running_server()
    from ml_platform.tracking.champions import rollback as roll_back

    move = roll_back(name, to, why=why, dry_run=dry_run)
    if json:
        print(json_format.dumps({"name": name, "from": move.before, "to": move.to, "dry_run": dry_run}))
    elif dry_run:
        back = f" --to {to}" if to is not None else ""
        print(f"would make version {move.to} champion of {name}, in place of {move.before}; nothing was done")
        print(f"to do it: python -m ml_platform registry rollback {name}{back}")
    else:
        print(
            f"version {move.to} is champion of {name} again, in place of {move.before}; to score with it: "
            f"python -m flows.batch_inference --model models:/{name}@champion --source TABLE"
        )
    return 0


def _use_running_server() -> None:
    """As flows do: the MLflow server of `make up`, unless another one is named."""
    import os

    from ml_platform.cli.services import services

    running = services()
    if running is not None:
        os.environ.setdefault("MLFLOW_TRACKING_URI", running.mlflow_url)


def _table(reigns: list[Reign]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("version", "champion since", "in place of"):
        table.add_column(column, no_wrap=True)
    table.add_column("by, and why")
    for reign in reigns:
        by = f"gate: {reign.verdict or 'promote'}, run {reign.flow_run or 'unknown'}"
        table.add_row(
            str(reign.version),
            f"{reign.since:%Y-%m-%d %H:%M} UTC",
            "none" if reign.before is None else str(reign.before),
            "\n".join(filter(None, (by if reign.kind == "gate" else f"rollback, {reign.who}", reign.why))),
        )
    return table


def _state(name: str, now: int | None, reigns: list[Reign]) -> str:
    if now is None:
        return f"{name} has no champion: its alias was removed in MLflow"
    by_hand = "" if now == reigns[-1].version else ", set in MLflow by hand"
    return f"models:/{name}@champion is version {now}{by_hand}"
