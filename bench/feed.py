"""B4: Parquet to a rank: rows through a `tf.data` iterator against a raw scan and TFRecord; memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from bench.context import Context, compared, say
from bench.memory import growth_row
from bench.pairing import Block, interval
from bench.report import Row
from bench.sides import Driver, rounds

TARGETS = {"packed": 0.7, "columns": 0.4}
"""Share of a raw scan's speed that must be reached."""
RECORDS = 3
"""How much faster than TFRecord."""
BATCH = 1024


def run(context: Context) -> Iterator[Row]:
    rows, count = context.pick(256, 1024) * BATCH, context.pick(5, 9)
    say(f"B4: {rows:,} rows of 64 float32, {count} rounds")
    with context.driver("ours_feed") as ours, context.driver("reading") as theirs:
        both = ours, theirs
        for kind in TARGETS:
            folder = _written(theirs, context, kind, rows)
            for shuffle in (False, True):
                scan = _Side("scan", folder, "pyarrow, a raw scan", 1 / TARGETS[kind])
                yield _against(context, both, kind, folder, rows, count, scan, shuffle=shuffle)
        rows = context.pick(64, 256) * BATCH
        folder, other = (_written(theirs, context, kind, rows) for kind in ("packed", "records"))
        records = _Side("records", other, "TFRecord, batch then parse", 1 / RECORDS)
        yield _against(context, both, "packed", folder, rows, count, records, shuffle=True)
    yield _memory(context)


class _Side(NamedTuple):
    """Whom we are compared with. `target`: our time over theirs, at most."""

    name: str
    folder: str
    shown: str
    target: float


def _written(driver: Driver, context: Context, kind: str, rows: int) -> str:
    folder = f"{context.home()}/{kind}"
    driver.ask(what="write", kind=kind, folder=folder, rows=rows)
    return folder


def _against(
    context: Context,
    drivers: tuple[Driver, Driver],
    kind: str,
    folder: str,
    rows: int,
    count: int,
    theirs: _Side,
    *,
    shuffle: bool,
) -> Row:
    places = {"ours": (drivers[0], folder), theirs.name: (drivers[1], theirs.folder)}
    if theirs.name == "scan":
        places["steps"] = drivers[1], theirs.folder
    sides: dict[str, Callable[[], Block]] = {
        side: partial(_epoch, context, driver, rows, kind=kind, side=side, folder=place, shuffle=shuffle)
        for side, (driver, place) in places.items()
    }
    for side in sides.values():
        side()  # the first epoch traces, and brings the file into memory
    blocks = rounds(sides, count)
    case = f"{kind}, {rows / 1e6:.2g} M rows{', shuffled' if shuffle else ''}"
    pair = blocks["ours"], blocks[theirs.name]
    more: dict[str, Any] = {"target": theirs.target}
    if "steps" in blocks:
        floor_s = interval([block.seconds for block in blocks["steps"]]).value
        more["limit"] = f"{rows // BATCH:,} steps over one batch {1e3 * floor_s:.0f} ms"
    return compared(context, "B4", case, theirs.shown, pair, **more)


def _epoch(context: Context, driver: Driver, rows: int, **question: object) -> Block:
    return context.block(driver, {"value": rows}, what="read", **question)


def _memory(context: Context) -> Row:
    """Each size in a process of its own: all of it, imports included."""
    sizes = [factor * 1024 * BATCH for factor in context.pick((1, 4), (1, 2, 4, 8))]
    peaks = []
    for rows in sizes:
        question = {"kind": "packed", "folder": f"{context.home()}/packed"}
        with context.driver("reading") as driver:
            driver.ask(what="write", rows=rows, **question)
        with context.driver("ours_feed") as driver:
            _epoch(context, driver, rows, side="ours", shuffle=True, **question)
            peaks.append(driver.ask(what="read", side="ours", shuffle=True, **question)["peak"])
    case = f"memory, {sizes[0] / 1e6:.2g} to {sizes[-1] / 1e6:.2g} M rows"
    return growth_row(context, "B4", case, sizes, peaks)
