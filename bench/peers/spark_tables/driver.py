"""Tables as a person with Spark alone handles them: made, copied, and turned into features by a Pipeline.

In our own environment: it holds the Spark that both need.
"""

from __future__ import annotations

import shutil
from typing import Any

import exchange
from pyspark.sql import SparkSession
from stages import RAW_SCHEMA, TABLES, pipeline


def write(spark: SparkSession, table: str, folder: str, rows: int) -> dict[str, Any]:
    """The table as Parquet, and the raw one as CSV, too."""
    spark.range(0, rows, 1, 8).selectExpr(*TABLES[table]).write.parquet(f"{folder}/parquet")
    if table == "raw":
        spark.read.parquet(f"{folder}/parquet").write.option("header", True).csv(f"{folder}/csv")
    return {"value": rows}


def copy(spark: SparkSession, kind: str, source: str, target: str) -> dict[str, Any]:
    """One pass: nothing is looked at but what the schema says."""
    reader = spark.read.schema(RAW_SCHEMA).format(kind).option("header", True)
    seconds, _ = exchange.timed(lambda: reader.load(source).write.parquet(target))
    value = digest(spark, [target])["value"]
    shutil.rmtree(target)
    return {"seconds": seconds, "value": value}


def digest(spark: SparkSession, files: list[str]) -> dict[str, Any]:
    """Rows, and two sums over a hash of each, nulls told apart: equal for equal rows in any order."""
    frame = spark.read.parquet(*files)
    values = ", ".join(f"isnull({name}), {name}" for name in sorted(frame.columns))
    sums = [f"string(sum(cast(xxhash64({seed}, {values}) as decimal(20,0))))" for seed in (1, 2)]
    return {"value": list(frame.selectExpr("string(count(1))", *sums).collect()[0])}


def fit(spark: SparkSession, source: str, target: str) -> dict[str, Any]:
    """Missing numbers filled with the median, numbers standardised, categories one-hot; all rows written."""
    frame = spark.read.parquet(source)
    fitted = []

    def work() -> None:
        fitted.append(pipeline().fit(frame))
        fitted[0].transform(frame).select("label", "features").write.parquet(target)

    seconds, _ = exchange.timed(work)
    imputer, indexer, _, _, scaler, _ = fitted[0].stages
    numbers = zip(imputer.surrogateDF.collect()[0], scaler.mean, scaler.std, strict=True)
    learnt = {"numbers": list(map(list, numbers)), "values": list(map(sorted, indexer.labelsArray))}
    rows = spark.read.parquet(target).count()
    shutil.rmtree(target)
    return {"seconds": seconds, "value": rows, **learnt}


ANSWERS = {"write": write, "copy": copy, "digest": digest, "fit": fit}

if __name__ == "__main__":
    builder = SparkSession.builder.master("local[2]").config("spark.driver.memory", "4g")
    builder = builder.config("spark.ui.enabled", "false").config("spark.sql.session.timeZone", "UTC")
    session = builder.getOrCreate()
    exchange.serve(lambda what, **question: ANSWERS[what](session, **question))
    session.stop()
