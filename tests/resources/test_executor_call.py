"""Functions on executors: the result comes back, or the error, and two run side by side."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ml_platform.errors import DataError
from ml_platform.resources.executor_call import call_on_executor

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def test_a_function_runs_in_another_process_and_its_result_comes_back(spark: SparkSession) -> None:
    ours, given = os.getpid(), {"rate": 0.1}
    assert call_on_executor(spark, lambda: (os.getpid() != ours, given)) == (True, given)


def test_its_error_comes_back_as_what_it_is(spark: SparkSession) -> None:
    def fail() -> None:
        raise DataError("no rows", hint="bring some")

    with pytest.raises(DataError, match="no rows") as caught:
        call_on_executor(spark, fail)
    assert caught.value.hint == "bring some"


def test_the_next_call_has_the_same_process(spark: SparkSession) -> None:
    """Another one would begin with its imports: half a second for a function of the project."""
    assert len({call_on_executor(spark, os.getpid) for _ in range(3)}) == 1


def test_two_run_side_by_side(spark: SparkSession, tmp_path: Path) -> None:
    """Each waits until the other has begun."""
    for name in ("left", "right"):
        os.mkfifo(tmp_path / name)

    def meet(mine: str, others: str) -> str:
        # A pipe opens when both ends do; a process of its own holds one end open for the other.
        if mine < others:
            (tmp_path / others).write_text(mine)
            return (tmp_path / mine).read_text()
        said = (tmp_path / mine).read_text()
        (tmp_path / others).write_text(mine)
        return said

    with ThreadPoolExecutor(2) as pool:
        left = pool.submit(call_on_executor, spark, lambda: meet("left", "right"))
        right = pool.submit(call_on_executor, spark, lambda: meet("right", "left"))
        assert (left.result(timeout=120), right.result(timeout=120)) == ("right", "left")
