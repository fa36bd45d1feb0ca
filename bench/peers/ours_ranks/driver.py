"""Trains on two ranks by `rank.fit`, and loses one of them where it is asked to."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import exchange
from on_ranks import DIES_IN, checked, survived, trained

from ml_platform.resources.horovod import HorovodJob, open_job
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import HorovodSpec

gang = ExitStack()


def opened(into: ExitStack, **more: Any) -> HorovodJob:
    spec = HorovodSpec(backend="processes", **more)
    return into.enter_context(open_job(spec, HorovodPlacement(), log_folder=Path(tempfile.mkdtemp())))


@cache
def warm(ranks: int) -> HorovodJob:
    return opened(gang, ranks=ranks)


def check(folder: str, batch: int, epochs: int, ranks: int) -> dict[str, Any]:
    """A whole fit, and what its checks took of it on the rank that paid most."""
    return max(warm(ranks).run(checked, folder, batch, epochs), key=lambda found: found["checks_s"])


def train(folder: str, batch: int, epochs: int, ranks: int) -> dict[str, Any]:
    """On ranks that are up; all epochs but the first, which traces."""
    found = warm(ranks).run(trained, folder, batch, epochs)
    return {"seconds": max(sum(seconds[2:]) for seconds in found), "value": found[0][0] == found[1][0]}


def lose(folder: str, batch: int, epochs: int, ranks: int, dies_after: int) -> dict[str, Any]:
    """A rank is lost on the way; it costs what it takes until the step after which it died is done again.

    Returns:
        Beside the answer, how many steps rank 0 took, and the seconds of an epoch.
    """
    with ExitStack() as ends:
        diary = ends.enter_context(tempfile.TemporaryDirectory())
        job = opened(ends, ranks=ranks, max_restarts=1)
        found = job.run(survived, folder, batch, epochs, diary, dies_after)
        lines = [line.split() for line in Path(diary, "steps").read_text().splitlines()]
        died = float(Path(diary, "death").read_text())
    again = (float(at) for at, *step in lines if step == [str(DIES_IN), str(dies_after)] and float(at) > died)
    answer = {"value": found[0][0] == found[1][0], "steps": len(lines)}
    return {**answer, "seconds": max(again) - died, "epoch_s": statistics.median(found[0][1:])}


def launch(ranks: int) -> dict[str, Any]:
    with ExitStack() as ends:
        seconds, found = exchange.timed(lambda: opened(ends, ranks=ranks).run(str))
    return {"seconds": seconds, "value": len(found)}


ANSWERS: dict[str, Callable[..., Any]] = {"train": train, "check": check, "lose": lose, "launch": launch}


def answer(what: str, **question: Any) -> dict[str, Any]:
    return ANSWERS[what](**question)


if __name__ == "__main__":
    with gang:
        exchange.serve(answer)
