"""B16: features fitted on a table and applied to it. B17: a table loaded. Both against Spark alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.context import Context, compared, say
from bench.memory import growth_row
from bench.pairing import Block
from bench.report import Row
from bench.sides import Driver, WrongAnswerError, rounds

TARGETS = {"B16": 0.8, "B17": 1.5}
"""Our time over theirs, at most."""
MOST_GROWN = 256 << 20
"""Bytes by which the flow's process may grow, whatever the rows: counts, not values, come to it."""


@contextmanager
def _drivers(context: Context) -> Iterator[tuple[Driver, Driver]]:
    with context.driver("ours_tables") as ours, context.driver("spark_tables") as theirs:
        yield ours, theirs


def fitted(context: Context) -> Iterator[Row]:
    """Both sides write what they made of every row."""
    rows, count = context.pick(50_000, 5_000_000), context.pick(1, 3)
    say(f"B16: {rows:,} rows of 20 numbers and 10 categories, {count} rounds")
    with _drivers(context) as (ours, theirs):
        # What is checked on fewer rows warms up, too.
        for few in dict.fromkeys((50_000, rows)):
            folder = context.home()
            theirs.ask(what="write", table="plain", folder=folder, rows=few)
            ours.ask(what="take", source=f"{folder}/parquet")
            if few == 50_000:
                _check_alike(ours.ask(what="fit"), theirs.ask(what="fit", **_places(context, folder)))
        sides: dict[str, Callable[[], Block]] = {
            "ours": lambda: context.block(ours, {"value": rows}, {"grown": MOST_GROWN}, what="fit"),
            "theirs": lambda: context.block(theirs, {"value": rows}, what="fit", **_places(context, folder)),
        }
        blocks = rounds(sides, count)
    case, pair = f"{rows / 1e6:.2g} M rows × 30 columns", (blocks["ours"], blocks["theirs"])
    yield compared(context, "B16", case, "pyspark.ml Pipeline", pair, target=TARGETS["B16"])


def memory(context: Context) -> Iterator[Row]:
    """Each size in processes of their own. What is measured is the flow's process, imports included."""
    sizes, peaks = [factor * context.pick(50_000, 625_000) for factor in context.pick((1, 4), (1, 8))], []
    for rows in sizes:
        with _drivers(context) as (ours, theirs):
            folder = context.home()
            theirs.ask(what="write", table="plain", folder=folder, rows=rows)
            ours.ask(what="take", source=f"{folder}/parquet")
            found = ours.ask(what="fit")
        if found["value"] != rows:
            raise WrongAnswerError(f"{found['value']} of {rows} rows became features")
        peaks.append(found["peak"])
    case = f"memory of the flow, {sizes[0] / 1e6:.2g} to {sizes[-1] / 1e6:.2g} M rows"
    yield growth_row(context, "B16", case, sizes, peaks)


def _places(context: Context, folder: str) -> dict[str, str]:
    return {"source": f"{folder}/parquet", "target": context.home()}


def _check_alike(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Medians, means and deviations to a hundredth of the deviation; values of categories exactly.

    Raises:
        WrongAnswerError: The two have learnt different things.
    """
    if mine["values"] != theirs["values"]:
        raise WrongAnswerError("the sides found other values of categories")
    for (fill, center, scale), (median, mean, deviation) in zip(
        mine["numbers"], theirs["numbers"], strict=True
    ):
        # They fill before they measure: one row in twenty lies in the middle, and the deviation is smaller.
        pairs = (fill, median), (center, mean), (scale * 0.95**0.5, deviation)
        if any(abs(one - other) > 0.02 * scale for one, other in pairs):
            raise WrongAnswerError(f"the sides learnt different numbers: {pairs}")


def loaded(context: Context) -> Iterator[Row]:
    """Ours finds out the types, profiles, fingerprints and sets bad rows aside; they are told the types."""
    rows, count = context.pick(50_000, 2_000_000), context.pick(1, 5)
    say(f"B17: {rows:,} rows of 12 columns, {count} rounds")
    with _drivers(context) as (ours, theirs):
        folder = context.home()
        theirs.ask(what="write", table="raw", folder=folder, rows=rows)
        for kind in ("parquet", "csv"):
            source = str(Path(folder) / kind)
            mine, its = _load(context, ours, source, rows), _copy(context, theirs, kind, source)
            files = ours.ask(what="load", source=source)["files"]
            expected = theirs.ask(what="copy", kind=kind, source=source, target=context.home())["value"]
            if theirs.ask(what="digest", files=files)["value"] != expected:
                raise WrongAnswerError(f"the rows of a loaded {kind} are not those of the copy")
            blocks = rounds({"ours": mine, "theirs": its}, count)
            case, pair = f"{kind}, {rows / 1e6:.2g} M rows", (blocks["ours"], blocks["theirs"])
            yield compared(context, "B17", case, "a bare Spark copy", pair, target=TARGETS["B17"])


def _load(context: Context, driver: Driver, source: str, rows: int) -> Callable[[], Block]:
    most = {"grown": MOST_GROWN}
    return lambda: context.block(driver, {"value": rows}, most, what="load", source=source)


def _copy(context: Context, driver: Driver, kind: str, source: str) -> Callable[[], Block]:
    def block() -> Block:
        return context.block(driver, {}, what="copy", kind=kind, source=source, target=context.home())

    return block
