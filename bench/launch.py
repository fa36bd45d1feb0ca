"""B5: from the call to the results of two ranks, each of which adds up one number with the other; and how
long the main job waits for its ranks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

from bench.context import Context, compared, counts, say
from bench.machine import FOREIGN_LIMIT
from bench.pairing import Block, clean, interval
from bench.report import Row, row
from bench.sides import rounds

RANKS = 2
WARM_TARGET_S = 0.3
WAIT_TARGET_S = 1.0
WAYS = {
    "rows": "rows dealt anew",
    "command": "the training alone is new, by a command",
    "worker": "the training alone is new, as a worker starts it",
}
"""What is new in a run of the main job, who starts it, and how that is shown."""
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


def waited(context: Context) -> Iterator[Row]:
    """As in a night with other rows; and where a training alone is new, so that nothing else hides the start
    of its ranks. A Prefect server is there."""
    count = context.pick(1, 5)
    say(f"B5: the training of flows.retrain, {count} rounds")
    rates = itertools.count(1)
    with context.driver("ours_flow") as driver:

        def wait(way: str) -> Block:
            rate = next(rates) / 1000
            return context.block(driver, {"value": [str(RANKS), str(rate)]}, way=way, rate=rate)

        wait("command")  # everything is new
        blocks = rounds({way: partial(wait, way) for way in WAYS}, count)
    for way, shown in WAYS.items():
        yield _seconds(context, f"flows.retrain, {shown}", blocks[way], WAIT_TARGET_S)


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
    return _seconds(context, f"warm, {backend}", blocks[1:], WARM_TARGET_S)


def _seconds(context: Context, case: str, blocks: Sequence[Block], target: float) -> Row:
    pairs = clean([(block, block) for block in blocks], limit=FOREIGN_LIMIT)
    seconds = interval([block.seconds for block, _ in pairs.kept])
    more = {"unit": "s", "target": target, "ours": f"{seconds.value:.3g} s", "limit": "0 s"}
    return row("B5", case, "ours", context.size, seconds, **counts(pairs), **more)
