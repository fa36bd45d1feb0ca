"""B11: memory of a table's way to training as it grows, and the largest one that gets through 4 GiB."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from typing import Any

from bench.context import Context, say, today
from bench.memory import FLAT, Held, growth_row, watched
from bench.pairing import Interval
from bench.report import Row, row
from bench.sides import WrongAnswerError

LIMIT = 4 << 30
"""Anonymous bytes that a side may hold."""
LARGEST = f"feed, largest table in {LIMIT >> 30} GiB"
PEERS = {
    "whole_table": "pandas → from_tensor_slices",
    "hf_datasets": "datasets, memory-mapped → to_tf_dataset",
}
WHOLE = {"whole_table": 0.5}
"""Who must not get through more than this share of our rows: else the limit is none."""
SLOW = {"hf_datasets"}
"""A minute for a million rows: the smallest and the largest table do."""
MOST_GIB = 1.2
"""Above the imports, whatever the rows."""
TREES = {
    "ours": "ours",
    "plain": "SparkXGBClassifier",
    "alone": "one process, QuantileDMatrix from an iterator",
}
CLOSE = 0.01
"""Largest difference of a loss: rows are dealt in another order, so that other ones are sampled."""


def feeds(context: Context) -> Iterator[Row]:
    """Each size and side in a process of its own. Who died is asked for no larger table."""
    sizes = [rows << 16 for rows in context.pick((1, 4), (16, 32, 64, 128))]
    say(f"B11: {sizes[0]:,} to {sizes[-1]:,} rows of 64 float32, at most {LIMIT >> 30} GiB")
    tables = {rows: _written(context, rows) for rows in sizes}
    ends = {rows: tables[rows] for rows in (sizes[0], sizes[-1])}
    ours = _through(context, "ours_feed", tables)
    yield from _our_rows(context, sizes, ours)
    for peer in PEERS:
        theirs = _through(context, peer, ends if peer in SLOW else tables)
        yield from _their_rows(context, peer, max(ours), theirs)
    for folder, _ in tables.values():
        shutil.rmtree(folder)


def _written(context: Context, rows: int) -> tuple[str, list[int]]:
    """Where it is, and what a scan sees in it."""
    folder = context.home()
    with context.driver("reading") as writer:
        writer.ask(what="write", kind="columns", folder=folder, rows=rows)
        return folder, writer.ask(what="sums", folder=folder)["value"]


def _through(context: Context, peer: str, tables: dict[int, tuple[str, list[int]]]) -> dict[int, Held]:
    """What a side held, by rows, up to the first table that is too much for it."""
    found: dict[int, Held] = {}
    for rows, (folder, expected) in tables.items():
        held = _read(context, peer, folder, expected)
        say(f"B11 {peer}, {rows:,} rows: {held}")
        if held.killed:
            break
        found[rows] = held
    return found


def _read(context: Context, peer: str, folder: str, expected: list[int]) -> Held:
    """One epoch. What came is compared with what a scan of the file saw."""
    with context.driver(peer) as driver:
        driver.ask(what="ready")
        with watched(driver.pid, LIMIT) as held:
            try:
                found = driver.ask(what="sums", folder=folder)["value"]
            except WrongAnswerError:
                if not held.killed:
                    raise
                return held
    if found != expected:
        raise WrongAnswerError(f"{peer}: wanted {expected}, got {found}")
    return held


def _our_rows(context: Context, sizes: list[int], ours: dict[int, Held]) -> Iterator[Row]:
    if not ours:
        raise WrongAnswerError(f"ours did not get {sizes[0]:,} rows through {LIMIT} bytes")
    # The small sizes lie below the rows that are mixed at once: there it has to grow.
    yield from _growth(context, ours, "ours", context.pick(None, FLAT))
    above = max(each.anonymous - each.at_first for each in ours.values()) / 2**30
    yield _one(context, f"feed, {_span(ours)}, above its imports", "ours", above, unit="GiB", target=MOST_GIB)
    shown = {"ours": f"{max(ours) / 1e6:.2g} M rows", "target": 1.0, "unit": "× ours"}
    yield _one(context, LARGEST, f"{sizes[-1] / 1e6:.2g} M rows", sizes[-1] / max(ours), **shown)


def _their_rows(context: Context, peer: str, ours: int, theirs: dict[int, Held]) -> Iterator[Row]:
    yield from _growth(context, theirs, PEERS[peer])
    most = max(theirs, default=0)
    shown = {"ours": f"{ours / 1e6:.2g} M rows", "theirs": f"{most / 1e6:.2g} M rows", "unit": "× ours"}
    target = context.pick(None, WHOLE.get(peer))
    yield _one(context, LARGEST, PEERS[peer], most / ours, target=target, **shown)


def _growth(context: Context, held: dict[int, Held], peer: str, target: float | None = None) -> Iterator[Row]:
    if len(held) > 1:
        peaks = [each.anonymous for each in held.values()]
        case = f"feed, {_span(held)}"
        yield growth_row(context, "B11", case, list(held), peaks, peer=peer, target=target)


def trees(context: Context) -> Iterator[Row]:
    """Each size and side in processes of its own. Of Spark, what its Python processes hold."""
    sizes = [rows << 16 for rows in context.pick((1, 2), (4, 16))]
    say(f"B11: trees on {sizes[0]:,} to {sizes[-1]:,} rows of 64 float32")
    peaks: dict[str, list[int]] = {side: [] for side in TREES}
    for rows in sizes:
        folder = context.home()
        with context.driver("reading") as writer:
            writer.ask(what="write", kind="classes", folder=folder, rows=rows)
        losses = []
        for side in TREES:
            peak, loss = _trained(context, side, folder, rows)
            peaks[side].append(peak)
            losses.append(loss)
        if max(losses) - min(losses) > CLOSE:
            raise WrongAnswerError(f"losses of {', '.join(TREES)} differ: {losses}")
        shutil.rmtree(folder)
    for side, held in peaks.items():
        case = f"trees, {_span(sizes)}"
        yield growth_row(context, "B11", case, sizes, held, peer=TREES[side], target=None)
    slopes = {side: (held[-1] - held[0]) / (sizes[-1] - sizes[0]) for side, held in peaks.items()}
    for side in ("plain", "alone"):
        shown = {"ours": f"{slopes['ours']:.0f} B", "theirs": f"{slopes[side]:.0f} B"}
        value = slopes["ours"] / slopes[side]
        yield _one(context, f"trees, memory of one more row, {_span(sizes)}", TREES[side], value, **shown)


def _trained(context: Context, side: str, folder: str, rows: int) -> tuple[int, float]:
    """Anonymous bytes at most, and the loss."""
    source = f"{folder}/part.parquet"
    with context.driver("ours_trees" if side == "ours" else "spark_trees") as driver:
        driver.ask(what="ready", source=source)
        with watched(driver.pid) as held:
            found = driver.ask(what=side, source=source)
    if found["value"] != rows:
        raise WrongAnswerError(f"{side}: trained on {found['value']} of {rows} rows")
    return held.anonymous, found["loss"]


def _span(sizes: Collection[int]) -> str:
    return f"{min(sizes) / 1e6:.2g} to {max(sizes) / 1e6:.2g} M rows"


def _one(context: Context, case: str, peer: str, value: float, **more: Any) -> Row:
    interval = Interval(value, value, value)
    return row("B11", case, peer, context.size, interval, pairs=1, date=today(), **more)
