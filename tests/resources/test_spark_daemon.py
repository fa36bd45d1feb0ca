"""Python workers of local Spark are forked with their imports done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ml_platform.resources.spark_daemon import IN_EVERY_WORKER, unpacked

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession


@pytest.mark.spark
def test_a_worker_has_its_imports_from_the_daemon_and_pyspark_from_where_the_driver_has_it(
    spark: SparkSession,
) -> None:
    def look(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import sys

        import pyarrow as pa
        import pyspark

        for _ in batches:
            row = {"command": [" ".join(sys.orig_argv)], "pyspark": [pyspark.__file__]}
            yield pa.RecordBatch.from_pydict({**row, "modules": [sorted(sys.modules)]})

    import pyspark

    columns = "command string, pyspark string, modules array<string>"
    (told,) = spark.range(0, 1, 1, 1).mapInArrow(look, columns).collect()
    assert "ml_platform.resources.spark_daemon" in told.command
    assert Path(told.pyspark).resolve() == Path(pyspark.__file__).resolve()
    assert set(IN_EVERY_WORKER) <= set(told.modules)


def test_only_the_zip_of_the_pyspark_that_is_installed_is_left_out() -> None:
    site, other = "/env/lib/site-packages", "/opt/spark"
    zips = [f"{site}/pyspark/python/lib/{name}.zip" for name in ("pyspark", "py4j-0.10.9.9-src")]
    strange = [f"{other}/python/lib/pyspark.zip", "/elsewhere/pyspark/python/lib/pyspark.zip"]
    assert unpacked([*zips, *strange, "/project", site]) == [*strange, "/project", site]
    assert unpacked(zips) == zips, "nothing else holds PySpark"
    assert Path(zips[0]).parents[3] == Path(site)
