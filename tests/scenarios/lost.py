"""A dag whose machines fail at the first try: a worker of Spark, then a rank."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform import Horovod, Spark, dag, task

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from ml_platform import HorovodJob, Rank


def note(folder: str, line: str) -> int:
    """Returns how often it has been noted."""
    file = Path(folder, line)
    with file.open("a") as opened:
        opened.write("x")
    return len(file.read_text())


def dies_first(folder: str, what: str) -> None:
    if note(folder, what) == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@task
def count_rows(folder: str, spark: SparkSession = Spark()) -> int:
    note(folder, "count_rows")

    def rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        dies_first(folder, "worker")
        yield from batches

    return int(spark.range(0, 100, 1, 1).mapInArrow(rows, "id long").count())


def count_ranks(rank: Rank, folder: str, rows: int) -> int:
    if rank.rank == 1:
        dies_first(folder, "rank")
    return rank.world_size * rows


@task
def add_up(folder: str, rows: int, job: HorovodJob = Horovod(ranks=2)) -> list[int]:
    note(folder, "add_up")
    return list(job.run(count_ranks, folder, rows))


@dag
def lost(folder: str) -> list[int]:
    """Both are the same again, unasked."""
    return add_up(folder, count_rows(folder))


if __name__ == "__main__":
    lost.cli()
