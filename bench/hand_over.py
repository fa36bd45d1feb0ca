"""B3: a large table from node to node. Ours hands a reference over; values are what peers hand over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from bench.context import Context, compared, say
from bench.pairing import Block, Interval, difference
from bench.report import Row
from bench.sides import Driver, rounds

PEERS = ("prefect", "dagster", "hamilton", "kedro", "flytekit")
NODES = 10
HOPS = 100
"""Ours alone against an int: what a run costs besides its nodes must not stand before what a hop costs."""
TARGET_MS = 1.0
COPY_SHARE = 0.1
SMALL_COPY = 32 << 20
"""A process grows by some MiB whatever it does; more than this, and a share of the table, is a copy."""


def run(context: Context) -> Iterator[Row]:
    size, count = context.pick(50_000_000, 1_000_000_000), context.pick(5, 11)
    say(f"B3: {size / 1e6:.0f} MB, {HOPS} nodes, {count} rounds")
    with context.driver("ours") as driver:
        table, number = (partial(_ours, context, driver, bytes_, HOPS) for bytes_ in (size, 0))
        for side in (table, number):
            side()
        blocks = rounds({"table": table, "int": number}, count)
    case, pair = f"{size / 1e6:.0f} MB by reference", (blocks["table"], blocks["int"])
    more = {"unit": "ms more a hop", "target": TARGET_MS, "limit": "the same reference, 0 ms"}
    yield compared(context, "B3", case, "ours, an int", pair, HOPS, _more_ms, **more)
    for peer in PEERS:
        yield _against(context, peer, context.pick(10_000_000, 100_000_000))


def _more_ms(pairs: Sequence[tuple[Block, Block]]) -> Interval:
    found = difference(pairs)
    return Interval(*(1e3 * value / HOPS for value in (found.value, found.low, found.high)))


def _ours(context: Context, driver: Driver, size: int, nodes: int) -> Block:
    home, folder = context.home(), f"{context.folder}/table-{size}"
    wanted = {"value": True if size else nodes, "executed": nodes}
    question = {"what": "hand_over", "nodes": nodes, "size": size, "home": home, "folder": folder}
    return context.block(driver, wanted, most={"grown": SMALL_COPY + COPY_SHARE * size}, **question)


def _against(context: Context, peer: str, size: int) -> Row:
    """One peer after another, each with a smaller table: some take minutes for a large one."""
    with context.driver("ours") as ours, context.driver(peer) as theirs:
        asked: dict[str, Any] = {"what": "hand_over", "nodes": NODES, "size": size}
        sides: dict[str, Callable[[], Block]] = {
            "ours": partial(_ours, context, ours, size, NODES),
            peer: partial(context.block, theirs, {}, **asked),
        }
        blocks = rounds(sides, 2)
    case = f"{size / 1e6:.0f} MB, by value there"
    return compared(context, "B3", case, peer, (blocks["ours"], blocks[peer]), NODES)
