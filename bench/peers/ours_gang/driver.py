"""Launches ranks by a command of their own, or beside a Spark session where the backend needs one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import exchange
from gangs import added_up, opened

from ml_platform.resources.horovod import HorovodJob
from ml_platform.resources.spark import open_session
from ml_platform.specs.placements import SparkPlacement

COMMAND = Path(__file__).parent / "command.py"

session, gang = ExitStack(), ExitStack()
backends: list[Any] = []
jobs: list[HorovodJob] = []


def prepare(backend: Any) -> dict[str, Any]:
    """Everything that is there before ranks are asked for."""
    backends.append(backend)
    if backend == "spark":
        session.enter_context(open_session(SparkPlacement(master="local[2]")))
    return {}


def launch(ranks: int) -> dict[str, Any]:
    """As `horovodrun`: an interpreter that starts, imports, launches, and ends with its ranks. Beside a Spark
    session in the process that has it, until the results are there."""
    with ExitStack() as ends:
        if backends[-1] == "spark":
            seconds, found = exchange.timed(lambda: list(opened(ends, ranks, "spark").run(added_up)))
            return {"seconds": seconds, "value": found}
        answer = Path(ends.enter_context(tempfile.TemporaryDirectory()), "answer")
        words = [sys.executable, COMMAND, str(ranks), answer]
        seconds, _ = exchange.timed(lambda: subprocess.run(words, check=True))
        return {"seconds": seconds, "value": json.loads(answer.read_text())}


def open_(ranks: int) -> dict[str, Any]:
    jobs.append(opened(gang, ranks, backends[-1]))
    return {}


def again() -> dict[str, Any]:
    seconds, found = exchange.timed(lambda: list(jobs[-1].run(added_up)))
    return {"seconds": seconds, "value": found}


ANSWERS = {"prepare": prepare, "launch": launch, "open": open_, "again": again}


def answer(what: str, **question: Any) -> dict[str, Any]:
    return ANSWERS[what](**question)


if __name__ == "__main__":
    with session, gang:
        exchange.serve(answer)
