"""Reads a table as a rank's `fit` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import exchange

from ml_platform.worker.columns import Columns
from ml_platform.worker.feed import open_feed
from ml_platform.worker.lanes import plan_batches
from ml_platform.worker.pipeline import steps_of

BATCH_ROWS = 1024
COLUMNS = {"packed": Columns(), "columns": Columns(tuple(f"f{number}" for number in range(64)))}


def epoch_of(kind: str, folder: str, shuffle: bool) -> int:
    """One epoch; how many rows it had."""
    feed = open_feed(folder, COLUMNS[kind])
    batching = plan_batches(feed.rows, batch_rows=BATCH_ROWS, world_size=1)

    def epoch() -> Iterator[Any]:
        return feed.chunks(batching, rank=0, seed=0, epoch=1, shuffle=shuffle)

    with steps_of(feed, epoch, batching) as data:
        return sum(int(labels.shape[0]) for _, labels in data)


def read(kind: str, side: str, folder: str, shuffle: bool) -> dict[str, Any]:
    """`peak`: bytes of this process meanwhile, imports and mapped files included."""
    seconds, _, rows = exchange.grown(lambda: epoch_of(kind, folder, shuffle))
    status = Path("/proc/self/status").read_text().partition("VmHWM:")[2]
    return {"seconds": seconds, "peak": 1024 * int(status.split()[0]), "value": rows}


def answer(what: str, **question: Any) -> dict[str, Any]:
    return {"read": read}[what](**question)


if __name__ == "__main__":
    exchange.serve(answer)
