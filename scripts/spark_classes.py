"""What Spark does in every flow, once: the JVM that runs it writes the classes it needed to an archive.

    spark-submit --conf "spark.driver.defaultJavaOptions=-XX:ArchiveClassesAtExit=FILE" THIS

Later JVMs map the archive instead of reading, checking and linking 15,000 classes anew.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession, Window, functions as sf

if TYPE_CHECKING:
    import pyarrow as pa


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        spark = SparkSession.builder.getOrCreate()
        work(spark.newSession(), Path(folder))
        spark.stop()


def work(spark: SparkSession, folder: Path) -> None:
    rows = spark.range(1_000).select("id", (sf.col("id") % 7).alias("kind"), sf.rand(1).alias("value"))
    rows.write.option("header", True).csv(f"{folder}/rows.csv")
    table = spark.read.csv(f"{folder}/rows.csv", header=True, schema="id LONG, kind STRING, value DOUBLE")
    table.repartition(2).write.parquet(f"{folder}/rows.parquet")
    table = spark.read.parquet(f"{folder}/rows.parquet").cache()
    one, other = table.randomSplit([0.5, 0.5], seed=1)
    quantiles = sf.percentile_approx("value", [0.25, 0.5, 0.75])
    kinds = table.groupBy("kind").agg(
        sf.count("*").alias("rows"), sf.avg("value"), sf.stddev("value"), quantiles
    )
    kinds.join(one, "kind", "left_anti").union(kinds).distinct().orderBy("rows").collect()
    by_value = sf.row_number().over(Window.partitionBy("kind").orderBy("value"))
    table.withColumn("place", by_value).filter("place < 3").join(sf.broadcast(other), "id").toArrow()
    table.mapInArrow(same, table.schema).write.mode("overwrite").parquet(f"{folder}/rows.parquet-2")
    spark.createDataFrame(table.limit(10).toPandas()).createOrReplaceTempView("few")
    spark.sql("SELECT kind, count(DISTINCT id) FROM few WHERE value IS NOT NULL GROUP BY kind").collect()
    table.rdd.barrier().mapPartitions(list).count()


def same(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from batches


if __name__ == "__main__":
    main()
