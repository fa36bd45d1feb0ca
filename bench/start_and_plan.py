"""B14: what `import ml_platform` costs over a bare interpreter, and what a plan costs per node."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from bench.context import Context, compared, counts, say
from bench.machine import FOREIGN_LIMIT
from bench.pairing import Block, Interval, clean, difference, growth, interval
from bench.report import Row, row
from bench.sides import ROOT, Driver, WrongAnswerError, measured, rounds

IMPORT_MS = 250.0
PLAN_MS = 1.0
EXPONENT = 1.1
STARTS = 20
"""Starts of an interpreter in one block: a single one is shorter than the counters of load can see."""
SIZES = (500, 1000, 2000, 4000)
HEAVY = ("tensorflow", "pyspark", "xgboost", "mlflow", "prefect", "numpy", "pydantic")


def run(context: Context) -> Iterator[Row]:
    yield _import(context)
    with Driver("ours") as driver:
        for shape in ("chain", "layers"):
            for stored in (False, True):
                yield from _plan(context, driver, shape, stored)


def _import(context: Context) -> Row:
    say("B14: import")
    loaded = _python(f"import ml_platform, sys; print([n for n in {HEAVY!r} if n in sys.modules])")
    if loaded != "[]":
        raise WrongAnswerError(f"`import ml_platform` loads {loaded}")
    sides = {"import ml_platform": "import ml_platform", "bare": "pass"}
    blocks = rounds({name: partial(_started, code) for name, code in sides.items()}, context.pick(5, 21))
    pair = blocks["import ml_platform"], blocks["bare"]
    more = {"unit": "ms more", "target": IMPORT_MS, "limit": "`python -c pass`"}
    return compared(context, "B14", "import", "a bare interpreter", pair, STARTS, _more_ms, **more)


def _more_ms(pairs: Sequence[tuple[Block, Block]]) -> Interval:
    found = difference(pairs)
    return Interval(*(1e3 * value / STARTS for value in (found.value, found.low, found.high)))


def _started(code: str) -> Block:
    def start() -> None:
        for _ in range(STARTS):
            _python(code)

    return measured(start)


def _python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    asked = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return asked.stdout.strip()


def _plan(context: Context, driver: Driver, shape: str, stored: bool) -> Iterator[Row]:
    """Sizes in turn, so that a disturbance meets all of them."""
    case = f"plan of {shape}, {'all cached' if stored else 'never run'}"
    say(f"B14: {case}")
    wanted = "cached" if stored else "value"
    sides: dict[str, Callable[[], Block]] = {}
    for nodes in SIZES:
        about: dict[str, Any] = {"shape": shape, "nodes": nodes, "home": context.home()}
        if stored:
            driver.ask(what="fill", **about)
        sides[str(nodes)] = partial(context.block, driver, {wanted: nodes}, what="plan", **about)
    blocks = rounds(sides, context.pick(7, 21))
    largest = [(block, block) for block in blocks[str(SIZES[-1])]]
    pairs = clean(largest, limit=FOREIGN_LIMIT)
    per_node = interval([1e3 * block.seconds / SIZES[-1] for block, _ in pairs.kept])
    same = {"limit": "reading the graph once", **counts(pairs)}
    at_most = f"{SIZES[-1]} nodes"
    yield row("B14", case, at_most, context.size, per_node, unit="ms a node", target=PLAN_MS, **same)
    grown = growth(SIZES, [[block.seconds for block in blocks[str(nodes)]] for nodes in SIZES])
    growing = f"{SIZES[0]} to {SIZES[-1]} nodes"
    yield row("B14", case, growing, context.size, grown, unit="exponent", target=EXPONENT, **same)
