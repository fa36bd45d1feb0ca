"""Scores a table as `batch_predict` does."""

from __future__ import annotations

from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import exchange

from ml_platform.data.sources import open_source, plain_files
from ml_platform.inference.any_model import predict_table
from ml_platform.inference.flavours import recognise
from ml_platform.inference.parts import file_parts
from ml_platform.inference.score import Output
from ml_platform.resources.spark import open_session
from ml_platform.specs.contracts import Contract
from ml_platform.specs.placements import SparkPlacement

_open = ExitStack()


@lru_cache(maxsize=1)
def session() -> Any:
    placement = SparkPlacement(master="local[2]", driver_memory_mib=1024)
    return _open.enter_context(open_session(placement))


def predict(source: str, model: str, out: str) -> int:
    """All rows; how many."""
    (file,) = (path for path in Path(model).iterdir() if path.is_file())
    found = predict_table(
        session(),
        recognise(file, str(file)),
        open_source(source).frame(session()),
        keys=("id",),
        output=Output(out),
        parts=file_parts(plain_files(source, Contract(columns=()))),
    )
    assert (found.failed_rows, found.reused_rows) == (0, 0)
    return found.rows


def answer(what: str, source: str, model: str, out: str, kind: str = "") -> dict[str, Any]:
    seconds, rows = exchange.timed(lambda: predict(source, model, out))
    return {"seconds": seconds, "value": rows}


if __name__ == "__main__":
    with _open:
        exchange.serve(answer)
