"""A dag of three tasks on real Spark and two ranks, small enough to be killed many times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_platform import Dataset, Horovod, Spark, dag, task

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ml_platform import HorovodJob, Rank


@task
def make_table(rows: int, spark: SparkSession = Spark()) -> Dataset:
    from ml_platform.store.datasets import write_dataset

    return write_dataset(spark.range(rows).selectExpr("id", "id * 2 AS twice"), name="numbers")


def count_rows(rank: Rank, table: Dataset) -> int:
    """What each rank sees of the table, summed over the ranks by Horovod itself."""
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

    return {"rows": read_table(table).num_rows, **{f"rank {at}": value for at, value in enumerate(sums)}}


@dag
def drilled(rows: int = 100) -> dict[str, int]:
    """Spark, then ranks, then both."""
    table = make_table(rows)
    return compare(table, add_up(table))
