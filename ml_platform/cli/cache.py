"""`python -m ml_platform cache`: how much room stored outputs take, and what of them is garbage."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter
from rich.table import Table

from ml_platform.cli.printing import printer

if TYPE_CHECKING:
    from ml_platform.store.garbage import Item

cache = cyclopts.App(
    name="cache", help="Look after what is stored: data sets, results, evaluations, backbones."
)

Json = Annotated[bool, Parameter(negative="")]
Runs = Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=0))]


@cache.command
def du(*, json: Json = False) -> int:
    """Say how many bytes stored outputs take, by kind.

    Parameters
    ----------
    json
        Print JSON instead of a table.
    """
    from ml_platform.store.garbage import contents
    from ml_platform.store.location import data_uri

    items = contents()
    if json:
        print(json_format.dumps({"store": data_uri(), "kinds": _sizes(items), "bytes": _bytes(items)}))
    else:
        _show(f"stored in {data_uri()} and beside it", items)
    return 0


@cache.command
def gc(
    *, delete: Annotated[bool, Parameter(negative="")] = False, keep_runs: Runs = 10, json: Json = False
) -> int:
    """Find outputs that nothing reaches any more; remove them with --delete.

    Kept is what a registered model was made of, what a kept run or its results name, and what is younger
    than an hour, or than a day in a store that other machines may use. Put a file named `keep` into a run's
    folder to keep that run. Nothing is removed while a run is under way.

    Parameters
    ----------
    delete
        Remove it. Without this option nothing is removed.
    keep_runs
        Newest runs of each dag to keep.
    json
        Print JSON instead of a table.
    """
    from ml_platform.store.garbage import remove, survey
    from ml_platform.store.location import data_uri
    from ml_platform.store.occupancy import alone
    from ml_platform.tracking.lineage import reached

    with alone() if delete else nullcontext():
        found = survey(reached(), keep_runs=keep_runs)
        if delete:
            remove(found.garbage)
    if json:
        facts: dict[str, Any] = {"store": data_uri(), "deleted": delete, "kept": _sizes(found.kept)}
        facts |= {"garbage": _sizes(found.garbage), "bytes": _bytes(found.garbage)}
        print(json_format.dumps({**facts, "items": [item.uri for item in found.garbage]}))
        return 0
    if not found.garbage:
        print(f"no garbage in {data_uri()}")
        return 0
    _show(f"{'removed from' if delete else 'garbage in'} {data_uri()}", found.garbage)
    if not delete:
        print("nothing was removed; to remove it: python -m ml_platform cache gc --delete")
    return 0


def _show(title: str, items: Iterable[Item]) -> None:
    sizes = _sizes(items)
    print(title)
    table = Table(show_footer=True)
    table.add_column("what", footer="together")
    table.add_column("count", justify="right", footer=str(sum(size["count"] for size in sizes.values())))
    table.add_column("MiB", justify="right", footer=_mib(sum(size["bytes"] for size in sizes.values())))
    for kind, size in sizes.items():
        table.add_row(kind, str(size["count"]), _mib(size["bytes"]))
    printer().print(table)


def _sizes(items: Iterable[Item]) -> dict[str, dict[str, int]]:
    sizes: dict[str, dict[str, int]] = {}
    for item in items:
        size = sizes.setdefault(item.kind, {"count": 0, "bytes": 0})
        size["count"] += 1
        size["bytes"] += item.bytes
    return sizes


def _bytes(items: Iterable[Item]) -> int:
    return sum(item.bytes for item in items)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f}"
