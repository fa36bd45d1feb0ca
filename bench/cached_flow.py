"""B2: the main job when all of it is stored: its command, beyond imports and an empty flow of Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.context import Context, compared, say
from bench.pairing import difference
from bench.report import Row
from bench.sides import rounds

TARGET_S = 5.0


def run(context: Context) -> Iterator[Row]:
    """Both are processes that report to one server. The plain one imports what the command does."""
    source, count = context.pick("sklearn:wine", "sklearn:digits"), context.pick(3, 5)
    say(f"B2: flows.retrain with everything stored, {count} rounds")
    with context.driver("ours_cached") as driver:
        driver.ask(what="settle", source=source)
        # Neither Spark nor ranks: what they print would have a file of its own.
        wanted = {"executed": 0, "value": ["nodes.jsonl", "run.json"]}
        sides = {
            "ours": partial(context.block, driver, wanted, what="cached", source=source),
            "plain": partial(context.block, driver, {}, what="plain"),
        }
        blocks = rounds(sides, count)
    pair, more = (blocks["ours"], blocks["plain"]), {"unit": "s more", "target": TARGET_S}
    plain = "the same imports and an empty flow"
    yield compared(
        context, "B2", "flows.retrain, all stored", plain, pair, of=difference, limit="0 s", **more
    )
