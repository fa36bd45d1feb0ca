"""B5: from the call to the results of two ranks, each of which adds up one number with the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from bench.context import Context, compared, counts, say
from bench.machine import FOREIGN_LIMIT
from bench.pairing import Block, clean, interval
from bench.report import Row, row
from bench.sides import rounds

RANKS = 2
WARM_TARGET_S = 0.3
PEERS = {
    "interpreters": ("processes", "two bare interpreters", 1.15),
    "horovodrun": ("processes", "horovodrun --gloo", 0.85),
    "spark_run": ("spark", "horovod.spark.run", 0.66),
}
"""Whom a cold launch is compared with: our backend, how it is shown, and our time over theirs, at most."""


def run(context: Context) -> Iterator[Row]:
    count = context.pick(1, 5)
    say(f"B5: {RANKS} ranks, {count} rounds")
    with ExitStack() as open_drivers:
        launchers = open_drivers.enter_context(context.driver("launchers"))
        sides: dict[str, Callable[[], Block]] = {
            backend: partial(_cold, context, backend) for backend in ("processes", "spark")
        }
        for name in PEERS:
            sides[name] = partial(context.block, launchers, _answer(), what=name, ranks=RANKS)
        # What a launcher keeps from its first call, its second may use; the Spark session is warm, too.
        sides["spark_run"]()
        sides["horovodrun"]()
        blocks = rounds(sides, count)
    for name, (backend, shown, target) in PEERS.items():
        pair = blocks[backend], blocks[name]
        limit = f"two bare interpreters {min(block.seconds for block in blocks['interpreters']):.1f} s"
        yield compared(context, "B5", f"cold, {backend}", shown, pair, target=target, limit=limit)
    yield from (_warm(context, backend) for backend in ("processes", "spark"))


def _answer() -> dict[str, object]:
    return {"value": [[rank, RANKS] for rank in range(RANKS)]}


def _cold(context: Context, backend: str) -> Block:
    """By a process that has launched nothing before: a command, as `horovodrun` is one, or one with a Spark
    session that has imported us, as the other one has imported Horovod."""
    with context.driver("ours_gang") as driver:
        driver.ask(what="prepare", backend=backend)
        return context.block(driver, _answer(), what="launch", ranks=RANKS)


def _warm(context: Context, backend: str) -> Row:
    """On ranks that are up: Horovod is initialised anew for each job."""
    with context.driver("ours_gang") as driver:
        driver.ask(what="prepare", backend=backend)
        driver.ask(what="open", ranks=RANKS)
        blocks = [context.block(driver, _answer(), what="again") for _ in range(context.pick(3, 9))]
    pairs = clean([(block, block) for block in blocks[1:]], limit=FOREIGN_LIMIT)
    seconds = interval([block.seconds for block, _ in pairs.kept])
    more = {"unit": "s", "target": WARM_TARGET_S, "ours": f"{seconds.value:.3g} s", "limit": "0 s"}
    return row("B5", f"warm, {backend}", "ours", context.size, seconds, **counts(pairs), **more)
