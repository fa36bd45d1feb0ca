"""`make bench`: run benches, print a JSON line per comparison, keep the table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import (
    cached_flow,
    feed,
    hand_over,
    images,
    launch,
    node_overhead,
    ranks,
    scoring,
    start_and_plan,
    survival,
    tables,
    tuning,
    unchanged_rerun,
)
from bench.context import Context, opened, say
from bench.environments import PEERS, version
from bench.machine import facts
from bench.report import Row, merged, read_rows, table

BENCHES: dict[str, Callable[[Context], Iterator[Row]]] = {
    "B14": start_and_plan.run,
    **{f"B1.{shape}": partial(node_overhead.run, shape=shape) for shape in ("chain", "fan", "layers")},
    "B2.nodes": unchanged_rerun.run,
    "B2.flow": cached_flow.run,
    "B3": hand_over.run,
    "B4": feed.run,
    **{f"B7.{case}": partial(scoring.run, case=case) for case in scoring.CASES},
    "B7.memory": scoring.memory,
    "B9": images.run,
    "B5.launch": launch.run,
    "B5.flow": launch.waited,
    "B6.steps": ranks.run,
    "B6.checks": ranks.checked,
    "B11.feed": survival.feeds,
    "B11.trees": survival.trees,
    "B13": tuning.run,
    "B15": ranks.killed,
    "B16": tables.fitted,
    "B16.memory": tables.memory,
    "B17": tables.loaded,
}
HERE = Path(__file__).parent
ROWS = HERE / "results.jsonl"
TABLE = HERE / "RESULTS.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 when a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    names = sorted({*BENCHES, *(name.partition(".")[0] for name in BENCHES)})
    parser.add_argument("--only", choices=names, action="append", help="Default: all.")
    parser.add_argument("--size", choices=("smoke", "full"), default="smoke")
    asked = parser.parse_args(argv)
    rows = []
    with opened(asked.size) as context:
        for name in BENCHES:
            if asked.only and not {name, name.partition(".")[0]} & set(asked.only):
                continue
            began = time.monotonic()
            for row in BENCHES[name](context):
                print(row.line(), flush=True)
                rows.append(row)
                keep([row])
            say(f"{name} took {time.monotonic() - began:.0f} s")
    return int(any(row.met is False for row in rows))


def keep(rows: Sequence[Row]) -> None:
    """Put new rows in the place of older ones, and write the table anew."""
    known = merged(read_rows(ROWS), rows)
    ROWS.write_text("".join(f"{row.line()}\n" for row in known))
    peers = sorted(path.parent.name for path in PEERS.glob("*/requirements.in"))
    versions = {"peers": ", ".join(map(version, peers))}
    TABLE.write_text(table(known, {**facts(), **versions}))


if __name__ == "__main__":
    sys.exit(main())
