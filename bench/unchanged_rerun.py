"""B2: run again what has not changed, in a new process; and again with one first node edited."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.context import Context, compared, say
from bench.pairing import Block
from bench.peers.exchange import CHAINS
from bench.report import Row
from bench.sides import rounds

PEERS = ("prefect", "hamilton", "kedro", "flytekit")
SEES_EDITS = frozenset({"ours", "prefect", "hamilton", "flytekit"})
"""Kedro looks whether outputs are there, not what they were made of. Dagster runs everything again."""
SMALL = 1000
TARGET = 0.1
BYTES_TARGET = 1.1
"""How much longer large outputs may take: what repetitions of equal work differ by."""


def run(context: Context) -> Iterator[Row]:
    nodes = context.pick(301, 1001)
    count = context.pick(3, 5)
    sides = {name: Kept(context, name, "texts", nodes, SMALL) for name in ("ours", *PEERS)}
    say(f"B2: {nodes} nodes, {count} rounds")
    for side in sides.values():
        side.fill()
    blocks = rounds({name: side.unchanged for name, side in sides.items()}, count)
    limit = f"stat of each result {1e3 * sides['ours'].stat_s() / nodes:.2g} ms"
    for name in PEERS:
        pair, target = (blocks["ours"], blocks[name]), TARGET if name == "prefect" else None
        yield compared(context, "B2", "unchanged, 1 KB", name, pair, per=nodes, target=target, limit=limit)
    for name in SEES_EDITS & set(sides):
        sides[name].edited(nodes // CHAINS + 1)
    yield from _by_bytes(context, nodes)


def _by_bytes(context: Context, nodes: int) -> Iterator[Row]:
    """Outputs are files by reference: large ones against small ones, both ours."""
    large, count = context.pick(100_000, 1_000_000), context.pick(3, 15)
    sides = {size: Kept(context, "ours", "files", nodes, size) for size in (large, SMALL)}
    for side in sides.values():
        side.fill()
    blocks = rounds({str(size): side.unchanged for size, side in sides.items()}, count)
    case = f"unchanged, {large * nodes / 1e6:.0f} MB in files"
    pair = blocks[str(large)], blocks[str(SMALL)]
    yield compared(context, "B2", case, "ours, 1 KB files", pair, per=nodes, target=BYTES_TARGET)


class Kept:
    """One side with a folder that lasts: its results are there for the next process."""

    def __init__(self, context: Context, peer: str, what: str, nodes: int, size: int) -> None:
        self.context = context
        self.peer = peer
        self.nodes = nodes
        self.folder = Path(tempfile.mkdtemp(prefix=f"kept-{peer}-", dir=context.folder))
        self._question: dict[str, Any] = {"what": what, "nodes": nodes, "size": size}
        if peer in ("hamilton", "kedro") or what == "files":
            self._question["folder"] = str(self.folder / "outputs")
            Path(self._question["folder"]).mkdir()
        if peer == "ours":
            self._question["home"] = str(self.folder / "platform")
        self._value = CHAINS * size if what == "texts" else CHAINS

    def _block(self, executed: int, edited: int | None = None) -> Block:
        with self.context.driver(self.peer, self.folder) as driver:
            wanted = {"value": self._value, "executed": executed}
            return self.context.block(driver, wanted, **self._question, edited=edited)

    def fill(self) -> None:
        self._block(executed=self.nodes)

    def unchanged(self) -> Block:
        return self._block(executed=0)

    def edited(self, affected: int) -> None:
        """One first node is another: exactly what comes after it runs."""
        self._block(executed=affected, edited=3)

    def stat_s(self) -> float:
        files = [path for path in self.folder.rglob("*.json") if ".results" in path.parts]
        began = time.perf_counter()
        for path in files:
            path.stat()
        return time.perf_counter() - began
