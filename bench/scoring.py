"""B7: a table scored on Spark: against MLflow's UDF, `predict_batch_udf` and one process; memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from bench.context import Context, compared, say
from bench.memory import growth_row, watched
from bench.pairing import Block
from bench.report import Row
from bench.sides import Driver, WrongAnswerError, rounds

SHOWN = {
    "spark_udf": "mlflow.pyfunc.spark_udf",
    "predict_batch_udf": "predict_batch_udf, traced call",
    "alone": "one process on all cores",
}
SMALL = "50 K parameters"
FILES = 8
CLOSE = 1e-5
"""Largest difference of a prediction."""


class Case(NamedTuple):
    """What is scored, and how our time may compare with that of each side, at most."""

    kind: str
    size: str
    files: int
    targets: dict[str, float | None]


def cases(many: int) -> dict[str, Case]:
    """By name. Speed relative to a peer is 1 over the target."""
    small: dict[str, float | None] = {"spark_udf": 1 / 2, "alone": 1 / 0.6}
    return {
        "vectors": Case("vectors", SMALL, FILES, {**small, "predict_batch_udf": 1 / 1.5}),
        "scalars": Case("scalars", SMALL, FILES, {**small, "predict_batch_udf": 1 / 1.1}),
        "large": Case("vectors", "1 M parameters", FILES, {"alone": 1 / 0.85}),
        "many": Case("vectors", SMALL, many, {"spark_udf": 1 / 10}),
        "trees": Case("scalars", "100 trees", FILES, {"spark_udf": 1 / 2, "alone": None}),
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
    shown = f"{rows / 1e6:.2g} M {case.kind}, {case.size}, {case.files} files"
    for name, target in case.targets.items():
        pair = (blocks["ours"], blocks[name])
        # Spark's own second is most of the smoke size's time: it says nothing against a process without it.
        wanted = context.pick(None, target) if name == "alone" else target
        yield compared(context, "B7", shown, SHOWN[name], pair, target=wanted)


def memory(context: Context) -> Iterator[Row]:
    """Each table in processes of their own: all of it, imports included. More rows, then more files."""
    rows, factor, many = context.pick((131_072, 4, 40), (1_048_576, 8, 200))
    plain = _peaks(context, rows, FILES)
    larger = f"{rows / 1e6:.2g} to {factor * rows / 1e6:.2g} M rows"
    yield from _flat(context, larger, factor, plain, _peaks(context, factor * rows, FILES))
    yield from _flat(context, f"{FILES} to {many} files", many / FILES, plain, _peaks(context, rows, many))


def _peaks(context: Context, rows: int, files: int) -> dict[str, int]:
    """The most bytes that the flow's process and its workers held, each."""
    table, network, size = context.home(), f"{context.folder}/network {SMALL}", SMALL
    with context.driver("scoring") as theirs:
        question = {"table": table, "network": network, "kind": "vectors", "size": size}
        theirs.ask(what="prepare", rows=rows, files=files, **question)
    with context.driver("ours_scoring") as ours, watched(ours.pid) as held:
        found = ours.ask(what="score", source=table, model=network, out=context.home())
    if found["value"] != rows:
        raise WrongAnswerError(f"{found['value']} of {rows} rows were scored")
    shutil.rmtree(table)
    return {"flow": held.flow, "workers": held.workers}


def _flat(
    context: Context, case: str, times: float, few: dict[str, int], many: dict[str, int]
) -> Iterator[Row]:
    for name in few:
        sizes, peaks = (1, times), (few[name], many[name])
        yield growth_row(context, "B7", f"memory of the {name}, {case}", sizes, peaks)
