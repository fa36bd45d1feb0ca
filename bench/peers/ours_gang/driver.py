"""Launches ranks as `HorovodRunner` and the engine do, beside a Spark session where the backend needs one."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import exchange

from ml_platform.resources.horovod import HorovodJob, open_job
from ml_platform.resources.spark import open_session
from ml_platform.specs.placements import HorovodPlacement, SparkPlacement
from ml_platform.specs.resources import HorovodSpec

session, gang = ExitStack(), ExitStack()
backends: list[Any] = []
jobs: list[HorovodJob] = []


def added_up(rank: Any) -> list[int]:
    import horovod.tensorflow as hvd
    import tensorflow as tf

    return [hvd.rank(), int(hvd.allreduce(tf.constant(1.0), op=hvd.Sum))]


def prepare(backend: Any) -> dict[str, Any]:
    """Everything that is there before ranks are asked for."""
    backends.append(backend)
    if backend == "spark":
        session.enter_context(open_session(SparkPlacement(master="local[2]")))
    return {}


def opened(into: ExitStack, ranks: int) -> HorovodJob:
    spec = HorovodSpec(ranks=ranks, backend=backends[-1])
    folder = Path(tempfile.mkdtemp())
    return into.enter_context(open_job(spec, HorovodPlacement(), log_folder=folder))


def launch(ranks: int) -> dict[str, Any]:
    """Until the results are there. That the ranks end then is not counted, here as with the others."""
    with ExitStack() as ends:
        seconds, found = exchange.timed(lambda: list(opened(ends, ranks).run(added_up)))
    return {"seconds": seconds, "value": found}


def open_(ranks: int) -> dict[str, Any]:
    jobs.append(opened(gang, ranks))
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
