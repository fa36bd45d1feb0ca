"""A user's five-line task with a Spark resource: in a plain Prefect flow, and in a dag."""

from __future__ import annotations

from typing import TYPE_CHECKING

import prefect
import pytest

from ml_platform import Spark, dag, task
from ml_platform.resources.leases import close_process_leases
from tests.engine.conftest import prefect_api

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["prefect_api"]

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]


@task
def total(rows: int, spark: SparkSession = Spark()) -> int:
    """Sum of the numbers below `rows`, by Spark."""
    return int(spark.range(rows).selectExpr("sum(id)").first()[0])


@prefect.flow
def plain() -> int:
    return total(10) + total(4)


@dag
def declared(rows: int = 10) -> int:
    return total(total(rows))


def test_the_task_works_through_both_doors_on_one_session(spark: SparkSession) -> None:
    """The live session is adopted, and outlives both."""
    try:
        assert plain() == 45 + 6
        assert declared() == sum(range(45))
    finally:
        close_process_leases()
    assert spark.range(3).count() == 3
