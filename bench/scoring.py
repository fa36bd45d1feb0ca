"""B7: a table scored on Spark: against MLflow's UDF, `predict_batch_udf` and one process; memory."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from bench.context import Context, compared, counts, say
from bench.machine import FOREIGN_LIMIT
from bench.pairing import Block, Interval, clean
from bench.report import Row, row
from bench.sides import Driver, WrongAnswerError, rounds

SHOWN = {
    "spark_udf": "mlflow.pyfunc.spark_udf",
    "predict_batch_udf": "predict_batch_udf, traced call",
    "alone": "one process on all cores",
}
CLOSE = 1e-5
"""Largest difference of a prediction."""
MEMORY_TARGET = 0.05


class Case(NamedTuple):
    """What is scored, and how our time may compare with that of each side, at most."""

    kind: str
    size: str
    files: int
    targets: dict[str, float]


def cases(many: int) -> dict[str, Case]:
    """By name. Speed relative to a peer is 1 over the target."""
    small = {"spark_udf": 1 / 2, "alone": 1 / 0.6}
    return {
        "vectors": Case("vectors", "50 K", 8, {**small, "predict_batch_udf": 1 / 1.5}),
        "scalars": Case("scalars", "50 K", 8, {**small, "predict_batch_udf": 1 / 1.1}),
        "large": Case("vectors", "1 M", 8, {"alone": 1 / 0.85}),
        "many": Case("vectors", "50 K", many, {"spark_udf": 1 / 10}),
    }


CASES = tuple(cases(0))


def run(context: Context, case: str) -> Iterator[Row]:
    rows, count = context.pick(131_072, 524_288), context.pick(3, 3 if case == "many" else 5)
    say(f"B7 {case}: {rows:,} rows of 64 float32, {count} rounds")
    with context.driver("ours_scoring") as ours, context.driver("scoring") as theirs:
        yield from _case(context, ours, theirs, cases(context.pick(40, 200))[case], rows, count)


def _case(context: Context, ours: Driver, theirs: Driver, case: Case, rows: int, count: int) -> Iterator[Row]:
    table = context.home()
    network = f"{context.folder}/network {case.size}"
    theirs.ask(
        what="prepare",
        table=table,
        network=network,
        kind=case.kind,
        rows=rows,
        files=case.files,
        size=case.size,
    )
    question = {"source": table, "kind": case.kind, "model": network}
    outs: dict[str, str] = {}

    def score(driver: Driver, **more: object) -> Block:
        out = context.home()
        outs[str(more.get("side", "ours"))] = out
        return context.block(driver, {"value": rows}, what="score", out=out, **question, **more)

    sides: dict[str, Callable[[], Block]] = {"ours": partial(score, ours)}
    sides |= {name: partial(score, theirs, side=name) for name in case.targets}
    for side in sides.values():
        side()  # Spark's first query, and imports in its workers
    for name in case.targets:
        far = float(theirs.ask(what="difference", folders=[outs["ours"], outs[name]])["value"])
        if far > CLOSE:
            raise WrongAnswerError(f"{name}: predictions differ from ours by {far:g}, at most {CLOSE:g}")
    blocks = rounds(sides, count)
    shown = f"{rows / 1e6:.2g} M {case.kind}, {case.size} parameters, {case.files} files"
    for name, target in case.targets.items():
        pair = (blocks["ours"], blocks[name])
        # Spark's own second is most of the smoke size's time: it says nothing against a process without it.
        wanted = context.pick(None, target) if name == "alone" else target
        yield compared(context, "B7", shown, SHOWN[name], pair, target=wanted)


def memory(context: Context) -> Iterator[Row]:
    """Each size in processes of their own: all of it, imports included."""
    sizes = [factor * context.pick(131_072, 1_048_576) for factor in context.pick((1, 4), (1, 8))]
    network = f"{context.folder}/network 50 K"
    peaks: dict[str, list[int]] = {"flow": [], "workers": []}
    for rows in sizes:
        table = context.home()
        question = {"table": table, "network": network, "kind": "vectors", "size": "50 K"}
        with context.driver("scoring") as theirs:
            theirs.ask(what="prepare", rows=rows, files=8, **question)
        with context.driver("ours_scoring") as ours:
            found = ours.ask(what="watch", source=table, model=network, out=context.home())
        if found["value"] != rows:
            raise WrongAnswerError(f"{found['value']} of {rows} rows were scored")
        for name, sizes_seen in peaks.items():
            sizes_seen.append(found[name])
        shutil.rmtree(table)
    alone = Block(1.0)
    pairs = counts(clean([(alone, alone)] * len(sizes), limit=FOREIGN_LIMIT))
    for name, seen in peaks.items():
        value = math.log(seen[-1] / seen[0]) / math.log(sizes[-1] / sizes[0])
        shown = {"ours": f"{seen[0] / 2**20:.0f} to {seen[-1] / 2**20:.0f} MiB", "limit": "constant, 0"}
        case = f"memory of the {name}, {sizes[0] / 1e6:.2g} to {sizes[-1] / 1e6:.2g} M rows"
        more = {"unit": "exponent", "target": MEMORY_TARGET}
        yield row("B7", case, "ours", context.size, Interval(value, value, value), **pairs, **shown, **more)
