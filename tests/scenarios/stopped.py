"""A dag whose two tasks work until somebody stops it: a Spark job, and a rank beside it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform import Horovod, Spark, dag, task

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from ml_platform import HorovodJob, Rank


def never_ends(started: Path) -> None:
    import time

    started.touch()
    while True:
        time.sleep(3600)


@task
def search(folder: str, spark: SparkSession = Spark()) -> int:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        never_ends(Path(folder, "job"))
        yield from batches

    return int(spark.range(0, 4, 1, 1).mapInArrow(work, "id long").count())


def learn(rank: Rank, folder: str) -> None:
    never_ends(Path(folder, "rank"))


@task
def train(folder: str, job: HorovodJob = Horovod(ranks=1)) -> int:
    job.run(learn, folder)
    return 1


@dag
def stopped(folder: str) -> list[int]:
    """Work until somebody stops it."""
    return [search(folder), train(folder)]


if __name__ == "__main__":
    # A shell that runs the tests in the background hands down that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stopped.cli()
