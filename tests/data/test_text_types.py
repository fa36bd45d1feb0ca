"""What a text is: the same by our patterns as by Spark's casts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from ml_platform.data.text_types import KINDS, MISSING, PATTERNS, kinds_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAYS = ["2024-02-29", "2023-02-29", "1900-02-29", "0000-01-01", "0001-01-01", "9999-12-31", "2024-13-01"]
CLOCKS = ["00:00", "24:00", "10:60", "23:59:59", "10:00:60", "10:00:59.999999999"]
ZONES = ["", "Z", "+00:00", "-18:00", "+18:01", "+19:00", "+0530", "-0560"]
TIMES = [f"{day} {clock}{zone}" for day, clock, zone in itertools.product(DAYS, CLOCKS, ZONES)]
ENDS = ["9223372036854775807", "-9223372036854775808", "9223372036854775808", "-9223372036854775809"]
NUMBERS = ["1", "-0", "+5", "007", *ENDS]
FRACTIONS = ["1.5", "1.", ".5", "1e5", "1E-400", "1e400", "inf", "-Infinity", "+Inf", "INF", "1,5", "1.5.2"]
WORDS = ["true", "FALSE", "tRUE", "yes", "12:30:00", "é", "١", "20240101", "2024-1-1", "1\n", " 1", *MISSING]


@pytest.mark.spark
def test_a_text_is_of_a_type_when_it_looks_so_and_spark_can_cast_it(spark: SparkSession) -> None:
    texts = [*DAYS, *TIMES, *NUMBERS, *FRACTIONS, *WORDS]
    tests = {
        kind: f"text RLIKE r'{pattern}' AND TRY_CAST(text AS {kind}) IS NOT NULL"
        for kind, pattern in PATTERNS.items()
    }
    cases = " ".join(f"WHEN {test} THEN '{kind}'" for kind, test in tests.items())
    missing = ", ".join(map(repr, MISSING))
    frame = spark.createDataFrame(list(enumerate(texts)), "at int, text string")
    found = frame.selectExpr("at", f"CASE WHEN text IN ({missing}) THEN '' {cases} ELSE 'string' END AS kind")
    wanted = [row.kind for row in found.orderBy("at").collect()]
    got = [KINDS[at] if at >= 0 else "" for at in kinds_of(pa.array(texts))]
    assert dict(zip(texts, got, strict=True)) == dict(zip(texts, wanted, strict=True))
