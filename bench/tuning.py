"""B13: a study whose trials take half a second of one core each, two at once; and twenty on two ranks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from bench.context import Context, compared, say
from bench.pairing import Block
from bench.report import Row
from bench.sides import rounds

PARALLEL = 2
TRIAL_S = 0.5
"""Of processor time."""
BUSY = 0.95
"""Share of the cores that trials use, at least, between the start of the first and the end of the last."""
PEERS = {"hyperopt": ("SparkTrials", 1 / 1.3), "journal": ("Optuna, a journal", None)}
"""How each is shown, and our time over theirs, at most."""
IN_A_ROW = 5
"""Searches, by whose trials cores are busy, when the peers have ended: their idle JVM works a little, too."""
RANKS = 2
RANK_TRIALS = 20
LAUNCHES = 1
"""Of `horovodrun`, in the place of as many as there are trials: each takes as long as any other."""
FASTER = 5


def run(context: Context) -> Iterator[Row]:
    yield from _side_by_side(context)
    yield _on_ranks(context)


def _side_by_side(context: Context) -> Iterator[Row]:
    trials, count = context.pick(8, 64), context.pick(1, 3)
    say(f"B13: {trials} trials of {TRIAL_S} s, {PARALLEL} at once, {count} rounds")
    question = {"trials": trials, "parallel": PARALLEL, "seconds": TRIAL_S}
    seeds = itertools.count(1)
    with context.driver("ours_tuning") as ours:
        ours.ask(what="prepare")

        def search() -> Block:
            """With a seed of its own: nothing of this study is stored yet."""
            return context.block(ours, {"value": trials}, what="executors", seed=next(seeds), **question)

        sides: dict[str, Callable[[], Block]] = {"ours": search}
        with ExitStack() as stack:
            for name in PEERS:
                theirs = stack.enter_context(context.driver(name))
                theirs.ask(**{**question, "trials": PARALLEL, "seed": 0})  # its Spark session is warm, too
                sides[name] = partial(context.block, theirs, {"value": trials}, seed=7, **question)
            blocks = rounds(sides, count)
        in_a_row = [search().until_it_returned() for _ in range(context.pick(1, IN_A_ROW))]
    alone = Block(trials * TRIAL_S / PARALLEL)
    for name, (shown, target) in PEERS.items():
        more = {"target": target, "limit": f"its trials {alone.seconds:.3g} s"}
        pair = blocks["ours"], blocks[name]
        yield compared(context, "B13", f"{trials} trials of {TRIAL_S} s", shown, pair, trials, **more)
    pair = in_a_row, [alone] * len(in_a_row)
    yield compared(context, "B13", "from the first to the last trial", "busy cores", pair, target=1 / BUSY)


def _on_ranks(context: Context) -> Row:
    trials, launches, count = context.pick(4, RANK_TRIALS), context.pick(1, LAUNCHES), context.pick(1, 3)
    say(f"B13: {trials} trials on {RANKS} ranks, {count} rounds")
    with context.driver("ours_tuning") as ours, context.driver("launchers") as theirs:
        seeds = itertools.count(1)

        def search() -> Block:
            question = {"trials": trials, "ranks": RANKS, "seed": next(seeds)}
            return context.block(ours, {"value": trials}, what="ranks", **question)

        def launch() -> Block:
            answer = {"value": [[rank, RANKS] for rank in range(RANKS)]}
            blocks = [context.block(theirs, answer, what="horovodrun", ranks=RANKS) for _ in range(launches)]
            each = sum(block.seconds for block in blocks) / launches
            return Block(each * trials, max(block.foreign for block in blocks))

        blocks = rounds({"ours": search, "horovodrun": launch}, count)
    case, pair = f"{trials} trials on {RANKS} ranks", (blocks["ours"], blocks["horovodrun"])
    return compared(context, "B13", case, "horovodrun --gloo, each", pair, trials, target=1 / FASTER)
