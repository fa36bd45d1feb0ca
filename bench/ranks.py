"""B6: steps of two ranks, against a hand-written Horovod script and against ranks that do not speak. B15: a
rank that is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from bench.context import Context, compared, counts, say
from bench.machine import FOREIGN_LIMIT
from bench.pairing import Block, clean, interval
from bench.report import Row, row
from bench.sides import Driver, rounds

RANKS = 2
EPOCHS = 3
"""The first one traces, and is not counted."""
PEERS = {"script": ("Horovod, by hand", 1 / 0.97), "alone": ("ranks without allreduce", 1 / 0.90)}
"""How each is shown, and our time over theirs, at most."""
FEW, MANY = 256, 1024
"""Rows per rank and step: what ranks say to each other weighs more with few. The target against ranks that do
not speak holds from `MANY` up."""


def run(context: Context) -> Iterator[Row]:
    steps, count = context.pick(10, 30), context.pick(1, 4)
    say(f"B6: {RANKS} ranks, {EPOCHS - 1} x {steps} steps, {count} rounds")
    with ExitStack() as stack:
        ours, theirs, writer = (
            stack.enter_context(context.driver(name)) for name in ("ours_ranks", "by_hand", "reading")
        )
        for batch in (FEW, MANY):
            folder = f"{context.home()}/packed"
            writer.ask(what="write", kind="packed", folder=folder, rows=RANKS * batch * steps)
            question = {"folder": folder, "batch": batch, "epochs": EPOCHS, "ranks": RANKS}
            sides: dict[str, Callable[[], Block]] = {
                "ours": partial(_steps, context, ours, alike=True, what="train", **question)
            }
            for name in PEERS:
                asked = {"steps": steps, "reduce": name == "script", **question}
                sides[name] = partial(_steps, context, theirs, alike=name == "script", **asked)
            blocks = rounds(sides, count)
            for name, (shown, target) in PEERS.items():
                case = f"MLP of 1 M, {batch} rows per rank"
                more = {"target": target if name == "script" or batch >= MANY else None}
                pair = blocks["ours"], blocks[name]
                yield compared(context, "B6", case, shown, pair, steps * (EPOCHS - 1), **more)


def checked(context: Context) -> Iterator[Row]:
    """What of a fit goes into looking whether all ranks are still in one state, every 100 steps or rarer."""
    steps, count, epochs = context.pick(40, 200), context.pick(1, 4), 3
    say(f"B6: {RANKS} ranks, checks within {epochs * steps} steps, {count} rounds")
    shares, blocks, each_s = [], [], []
    with context.driver("ours_ranks") as ours, context.driver("reading") as writer:
        folder = f"{context.home()}/packed"
        writer.ask(what="write", kind="packed", folder=folder, rows=RANKS * FEW * steps)
        for _ in range(count):
            found: dict[str, Any] = {}
            question = {"folder": folder, "batch": FEW, "epochs": epochs, "ranks": RANKS}
            block = context.block(ours, {}, into=found, what="check", **question)
            shares.append(found["checks_s"] / found["seconds"])
            each_s.append(found["checks_s"] / found["checks"])
            blocks.append((block, block))
    case = f"checks, MLP of 1 M, {FEW} rows per rank"
    more = {"unit": "of the time", "target": 0.01, "ours": f"{1e3 * interval(each_s).value:.3g} ms each"}
    pairs = counts(clean(blocks, limit=FOREIGN_LIMIT))
    yield row("B6", case, "the fit they are in", context.size, interval(shares), **pairs, **more)


def _steps(context: Context, driver: Driver, *, alike: bool, **question: object) -> Block:
    """`alike`: whether all ranks must end with the same weights; those that do not speak must not."""
    return context.block(driver, {"value": alike}, **question)


def killed(context: Context) -> Iterator[Row]:
    """What a rank costs that is killed in the middle of an epoch: steps, counted, and time.

    Time ends when the step after which it died is done again: until then the run gains nothing.
    """
    steps, count, epochs = context.pick(20, 60), context.pick(1, 5), 3
    say(f"B15: a rank of {RANKS} killed, {count} rounds")
    with context.driver("ours_ranks") as ours, context.driver("reading") as writer:
        folder = f"{context.home()}/packed"
        writer.ask(what="write", kind="packed", folder=folder, rows=RANKS * FEW * steps)
        question = {
            "folder": folder,
            "batch": FEW,
            "epochs": epochs,
            "ranks": RANKS,
            "dies_after": steps // 2,
        }
        again: list[float] = []
        epoch_s: list[float] = []

        def lose() -> Block:
            found: dict[str, Any] = {}
            block = context.block(ours, {"value": True}, into=found, what="lose", **question)
            again.append((found["steps"] - epochs * steps) / steps)
            epoch_s.append(found["epoch_s"])
            return block

        launch = partial(context.block, ours, {"value": RANKS}, what="launch", ranks=RANKS)
        launch()  # the first one imports; later ones, as after a loss, are forked
        blocks = rounds({"lose": lose, "launch": launch}, count)
    allowed = [
        replace(block, seconds=block.seconds + epoch)
        for block, epoch in zip(blocks["launch"], epoch_s, strict=True)
    ]
    case, peer = "killed in mid-epoch, a checkpoint per epoch", "an epoch and a launch"
    yield compared(context, "B15", case, peer, (blocks["lose"], allowed), target=1.0)
    more = {"unit": "×", "target": 1.0, "limit": "half an epoch, when it was killed"}
    pairs = counts(clean([(block, block) for block in blocks["lose"]], limit=1.0))
    yield row("B15", "steps that are done again", "an epoch", context.size, interval(again), **pairs, **more)
