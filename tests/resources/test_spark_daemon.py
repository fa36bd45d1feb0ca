"""Python workers of local Spark are forked with their imports done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ml_platform.resources.spark_daemon import (
    IN_EVERY_WORKER,
    TENSORFLOW,
    forked_with,
    import_also,
    unpacked,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Row, SparkSession


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


@pytest.mark.spark
@pytest.mark.horovod
def test_functions_that_need_a_library_run_in_workers_that_have_it_from_birth(spark: SparkSession) -> None:
    """Of a daemon of their own, which runs nothing of TensorFlow itself; all others stay as they were."""

    def look(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import os
        import sys
        from pathlib import Path

        import pyarrow as pa

        for _ in batches:
            has = "tensorflow" in sys.modules
            row = {"parent": [os.getppid()], "has": [has]}
            threads = [path.read_text().strip() for path in Path(f"/proc/{os.getppid()}/task").glob("*/comm")]
            if has:
                import tensorflow as tf

                assert float(tf.reduce_sum(tf.ones(3))) == 3
            yield pa.RecordBatch.from_pydict({**row, "threads": [threads]})

    def told(modules: tuple[str, ...]) -> Row:
        with forked_with(modules):
            looked = spark.range(0, 1, 1, 1).mapInArrow(
                look, "parent bigint, has boolean, threads array<string>"
            )
        (row,) = looked.collect()
        return row

    without, first, again = told(()), told(TENSORFLOW), told(TENSORFLOW)
    assert (without.has, first.has) == (False, True)
    assert first.parent == again.parent != without.parent
    assert set(first.threads) == set(without.threads), "no thread that a fork would lose"


@pytest.mark.spark
def test_a_function_that_another_thread_defines_meanwhile_is_not_disturbed(spark: SparkSession) -> None:
    """PySpark goes through the environment key by key, each one a call of the JVM."""
    environment = spark.sparkContext.environment
    sending = iter(environment.keys())
    next(sending)
    with forked_with(TENSORFLOW):
        assert len(list(sending)) == len(environment) - 1
    assert len(spark.sparkContext.environment) == len(environment)


def test_what_cannot_be_imported_is_left_to_the_workers(capsys: pytest.CaptureFixture[str]) -> None:
    """A daemon that ended would say nothing that anyone could read."""
    import_also(["ml_platform", "no_such_module"])
    assert "No module named 'no_such_module'" in capsys.readouterr().err
