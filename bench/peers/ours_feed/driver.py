"""Reads a table as a rank's `fit` does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import exchange
from sums import sums

from ml_platform.worker.columns import Columns
from ml_platform.worker.feed import open_feed
from ml_platform.worker.lanes import plan_batches
from ml_platform.worker.pipeline import steps_of
from ml_platform.worker.session import prepare_session

BATCH_ROWS = 1024
COLUMNS = {"packed": Columns(), "columns": Columns(tuple(f"f{number}" for number in range(64)))}


pipelines = ExitStack()


@cache
def pipeline(kind: str, folder: str, shuffle: bool) -> Any:
    """What `fit` makes once for all of its epochs."""
    rows = open_feed(folder, COLUMNS[kind])
    batching = plan_batches(rows.rows, batch_rows=BATCH_ROWS, world_size=1)

    def epoch() -> Iterator[Any]:
        feed = open_feed(folder, COLUMNS[kind])  # anew: it keeps no row group of the epoch before
        return feed.chunks(batching, rank=0, seed=0, epoch=1, shuffle=shuffle)

    return pipelines.enter_context(steps_of(rows, epoch, batching))


def epoch_of(kind: str, folder: str, shuffle: bool) -> int:
    """One epoch; how many rows it had."""
    return sum(int(labels.shape[0]) for _, labels in pipeline(kind, folder, shuffle))


def read(kind: str, side: str, folder: str, shuffle: bool) -> dict[str, Any]:
    """`peak`: bytes of this process meanwhile, imports and mapped files included."""
    pipeline(kind, folder, shuffle)
    seconds, _, rows = exchange.grown(lambda: epoch_of(kind, folder, shuffle))
    status = Path("/proc/self/status").read_text().partition("VmHWM:")[2]
    return {"seconds": seconds, "peak": 1024 * int(status.split()[0]), "value": rows}


def seen(folder: str) -> dict[str, Any]:
    """What came in a shuffled epoch of columns."""
    return {"value": sums(pipeline("columns", folder, shuffle=True))}


def answer(what: str, **question: Any) -> dict[str, Any]:
    return {"read": read, "sums": seen, "ready": dict}[what](**question)


if __name__ == "__main__":
    prepare_session(1)
    with pipelines:
        exchange.serve(answer)
