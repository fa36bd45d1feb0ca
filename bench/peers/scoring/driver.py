"""Scores a table as others do: see `scorers.py`. In our own environment, which has them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import exchange
from prepared import TREES, difference, write_network, write_table, write_trees
from pyarrow import parquet
from scorers import alone, on_spark


def score(side: str, out: str, **question: Any) -> dict[str, Any]:
    work = {"alone": alone}.get(side, on_spark)
    seconds, _ = exchange.timed(lambda: work(side, out=out, **question))
    return {"seconds": seconds, "value": parquet.read_table(out, columns=["id"]).num_rows}


def prepare(table: str, network: str, kind: str, rows: int, files: int, size: str) -> dict[str, Any]:
    write_table(Path(table), kind, rows, files)
    if not Path(network).exists():
        (write_trees if size in TREES else write_network)(Path(network), size)
    return {"value": rows}


def answer(what: str, **question: Any) -> dict[str, Any]:
    if what == "difference":
        return {"value": difference(question["folders"])}
    return {"score": score, "prepare": prepare}[what](**question)


if __name__ == "__main__":
    exchange.serve(answer)
