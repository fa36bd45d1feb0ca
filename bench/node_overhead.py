"""B1: what a node costs that does nothing. A chain, a fan and layers, in a process that is warm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from bench.context import Context, compared, say
from bench.pairing import Block
from bench.peers import exchange
from bench.report import Row
from bench.sides import rounds

CALL = "prefect, called"
SUBMIT = "prefect, .submit"
PEERS = {
    "prefect": CALL,
    "dagster": "dagster",
    "hamilton": "hamilton",
    "kedro": "kedro",
    "flytekit": "flytekit",
}
TARGETS = {("chain", CALL): 1.15, ("fan", CALL): 1.15, ("layers", CALL): 1.15, ("fan", SUBMIT): 1.0}
WARMING_NODES = 20


def run(context: Context, shape: str) -> Iterator[Row]:
    nodes, count = context.pick(200, 1000), context.pick(3, 5)
    with ExitStack() as open_drivers:
        drivers = {name: open_drivers.enter_context(context.driver(name)) for name in ("ours", *PEERS)}
        say(f"B1 {shape}: {nodes} nodes, {count} rounds")
        sides = _sides(context, drivers, shape)
        for side in sides.values():
            side(WARMING_NODES)
        blocks = rounds({name: partial(side, nodes) for name, side in sides.items()}, count)
    limit = f"a plain loop {1e3 * _plain_loop_s(shape, nodes) / nodes:.2g} ms"
    for name in list(sides)[1:]:
        target = context.pick(None, TARGETS.get((shape, name)))
        more = {"per": nodes, "target": target, "limit": limit}
        pair = blocks["ours"], blocks[name]
        yield compared(context, "B1", shape, name, pair, **more)
        if name in (CALL, SUBMIT):
            returned = tuple([block.until_it_returned() for block in side] for side in pair)
            yield compared(context, "B1", f"{shape}, until it returns", name, returned, **more)


def _sides(context: Context, drivers: dict[str, Any], shape: str) -> dict[str, Callable[[int], Block]]:
    """Ours first; each is called with a number of nodes."""

    def side(name: str, nodes: int, **more: Any) -> Block:
        wanted = {"value": exchange.walk(exchange.graph(shape, nodes))}
        if name == "ours":
            wanted["executed"], more["home"] = nodes, context.home()
        return context.block(drivers[name], wanted, what="graph", shape=shape, nodes=nodes, **more)

    found: dict[str, Callable[[int], Block]] = {
        "ours": partial(side, "ours"),
        **{said: partial(side, name) for name, said in PEERS.items()},
    }
    if shape == "fan":
        found[SUBMIT] = partial(side, "prefect", submit=True)
    return found


def _plain_loop_s(shape: str, nodes: int) -> float:
    parents = exchange.graph(shape, nodes)
    began = time.perf_counter()
    exchange.walk(parents)
    return time.perf_counter() - began
