"""A dag of three tasks on real Spark and two ranks, small enough to be killed many times."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ml_platform import Dataset, Horovod, Spark, dag, task

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from ml_platform import HorovodJob, Rank


def leave_a_file() -> None:
    """As libraries do that remove their temporary files only when they end in peace."""
    os.close(tempfile.mkstemp()[0])


@task
def make_table(rows: int, spark: SparkSession = Spark()) -> Dataset:
    from ml_platform.store.datasets import write_dataset

    def leave(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        leave_a_file()
        yield from batches

    assert spark.range(1).mapInArrow(leave, "id long").count() == 1
    return write_dataset(spark.range(rows).selectExpr("id", "id * 2 AS twice"), name="numbers")


def count_rows(rank: Rank, table: Dataset) -> int:
    """What each rank sees of the table, summed over the ranks by Horovod itself."""
    leave_a_file()
    import horovod.tensorflow as hvd
    import tensorflow as tf

    mine = [row for row in range(table.rows) if row % rank.world_size == rank.rank]
    return int(hvd.allreduce(tf.constant(float(sum(mine))), op=hvd.Sum).numpy())


@task
def add_up(table: Dataset, job: HorovodJob = Horovod(ranks=2)) -> list[int]:
    return list(job.run(count_rows, table))


@task
def compare(table: Dataset, sums: list[int]) -> dict[str, int]:
    from ml_platform.store.datasets import read_table

    leave_a_file()
    return {"rows": read_table(table).num_rows, **{f"rank {at}": value for at, value in enumerate(sums)}}


@dag
def drilled(rows: int = 100) -> dict[str, int]:
    """Spark, then ranks, then both."""
    table = make_table(rows)
    return compare(table, add_up(table))
