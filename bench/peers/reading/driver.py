"""Reads a table as others do: pyarrow alone, or TFRecord. In our own environment, which has both."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import exchange
from epochs import SIDES, batches
from sums import sums
from written import WRITERS


def write(kind: str, folder: str, rows: int) -> dict[str, Any]:
    """Whole batches, so that every side sees every row."""
    WRITERS[kind](Path(folder), rows)
    return {"value": rows}


def read(kind: str, side: str, folder: str, shuffle: bool) -> dict[str, Any]:
    """One epoch."""
    seconds, rows = exchange.timed(lambda: SIDES[side](kind, Path(folder), shuffle))
    return {"seconds": seconds, "value": rows}


def seen(folder: str) -> dict[str, Any]:
    """What is there, for those who are compared."""
    return {"value": sums(batches(Path(folder)))}


def answer(what: str, **question: Any) -> dict[str, Any]:
    return {"write": write, "read": read, "sums": seen}[what](**question)


if __name__ == "__main__":
    gc.collect()
    gc.freeze()  # what was imported is looked through for garbage on no side
    exchange.serve(answer)
