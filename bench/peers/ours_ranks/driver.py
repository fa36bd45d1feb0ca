"""Trains on two ranks by `rank.fit`, and loses one of them where it is asked to."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import exchange
from on_ranks import trained

from ml_platform.resources.horovod import HorovodJob, open_job
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import HorovodSpec

gang = ExitStack()
jobs: list[HorovodJob] = []


def opened(into: ExitStack, **more: Any) -> HorovodJob:
    spec = HorovodSpec(backend="processes", **more)
    return into.enter_context(open_job(spec, HorovodPlacement(), log_folder=Path(tempfile.mkdtemp())))


def train(folder: str, batch: int, epochs: int, ranks: int) -> dict[str, Any]:
    """On ranks that are up; all epochs but the first, which traces."""
    if not jobs:
        jobs.append(opened(gang, ranks=ranks))
    found = jobs[0].run(trained, folder, batch, epochs, "")
    return {"seconds": max(sum(seconds[2:]) for seconds in found), "value": found[0][0] == found[1][0]}


def lose(folder: str, batch: int, epochs: int, ranks: int, kill: bool) -> dict[str, Any]:
    """From the call to the result, on ranks that are up; with `kill` one of them is lost on the way.

    Returns:
        Beside the answer, the seconds of an epoch.
    """
    mark = Path(tempfile.mkdtemp(), "lost")
    if not kill:
        mark.touch()
    with ExitStack() as ends:
        job = opened(ends, ranks=ranks, max_restarts=1)
        job.run(str)
        seconds, found = exchange.timed(lambda: job.run(trained, folder, batch, epochs, str(mark)))
    same = mark.exists() and found[0][0] == found[1][0]
    return {"seconds": seconds, "value": same, "epoch_s": statistics.median(found[0][1:])}


def launch(ranks: int) -> dict[str, Any]:
    with ExitStack() as ends:
        seconds, _ = exchange.timed(lambda: opened(ends, ranks=ranks).run(str))
    return {"seconds": seconds}


ANSWERS: dict[str, Callable[..., dict[str, Any]]] = {"train": train, "lose": lose, "launch": launch}


def answer(what: str, **question: Any) -> dict[str, Any]:
    return ANSWERS[what](**question)


if __name__ == "__main__":
    with gang:
        exchange.serve(answer)
