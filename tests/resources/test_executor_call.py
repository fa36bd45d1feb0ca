"""Functions on executors: the result comes back, or the error, and several run side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ml_platform.errors import DataError, InfrastructureError
from ml_platform.resources import executor_call
from ml_platform.resources.executor_call import call_on_executor
from ml_platform.resources.spark import cancel_group, task_session
from ml_platform.specs.resources import SparkSpec

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


def test_a_process_that_dies_fails_its_call_and_no_other(spark: SparkSession) -> None:
    with pytest.raises(Exception, match="Python worker exited unexpectedly"):
        call_on_executor(spark, lambda: os._exit(3))
    assert call_on_executor(spark, lambda: 7) == 7


def test_what_a_job_group_called_ends_with_it(spark: SparkSession, tmp_path: Path) -> None:
    """As when a run is stopped, or a task took too long; the group calls nothing any more."""
    began = tmp_path / "began"
    os.mkfifo(began)

    def hang() -> None:
        began.write_text("")
        threading.Event().wait()

    def call(function: Callable[[], Any]) -> Any:
        with task_session(spark, SparkSpec(), group="stopped"):
            return call_on_executor(spark, function)

    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(call, hang)
        began.read_text()
        cancel_group(spark, "stopped")
        with pytest.raises(Exception, match="cancelled"):
            hanging.result(timeout=60)
        with pytest.raises(InfrastructureError, match="job group stopped was cancelled"):
            pool.submit(call, os.getpid).result(timeout=60)
    assert call_on_executor(spark, lambda: 7) == 7


def test_what_a_thread_of_a_task_called_ends_with_the_task(spark: SparkSession, tmp_path: Path) -> None:
    """A thread that the task has started itself has no job group."""
    began = tmp_path / "began"
    os.mkfifo(began)

    def hang() -> None:
        began.write_text("")
        threading.Event().wait()

    with ThreadPoolExecutor(1) as pool, task_session(spark, SparkSpec(), group="threaded") as session:
        hanging = pool.submit(call_on_executor, session, hang)
        began.read_text()
        cancel_group(spark, "threaded")
        with pytest.raises(Exception, match="cancelled"):
            hanging.result(timeout=60)


def test_a_function_makes_no_session(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short functions wait for few calls of the JVM."""
    monkeypatch.setattr(spark, "_jsparkSession", None)
    with task_session(spark, SparkSpec(), group="bare") as session:
        assert call_on_executor(session, lambda: 7) == 7
        with pytest.raises(AttributeError, match="newSession"):
            session.range(1)


def test_a_task_goes_on_where_no_other_job_is(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark import TaskContext

    monkeypatch.setattr(executor_call, "AGE_S", 0.0)
    found = {call_on_executor(spark, lambda: TaskContext.get().taskAttemptId()) for _ in range(10)}  # type: ignore[union-attr]

    assert len(found) == 1


def test_functions_without_end_make_room_for_other_jobs(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_call, "AGE_S", 0.0)
    slots, over = spark.sparkContext.defaultParallelism, threading.Event()

    def go_on(_: int) -> None:
        while not over.is_set():
            call_on_executor(spark, os.getpid)

    with ThreadPoolExecutor(2 * slots) as pool:
        callers = [pool.submit(go_on, number) for number in range(2 * slots)]
        try:
            assert spark.range(slots).repartition(slots).count() == slots
        finally:
            over.set()
    for caller in callers:
        caller.result()


def test_a_task_without_functions_gives_its_slot_back(spark: SparkSession) -> None:
    """All slots at once can be had soon after."""
    slots = spark.sparkContext.defaultParallelism
    with ThreadPoolExecutor(4 * slots) as pool:
        list(pool.map(lambda _: call_on_executor(spark, os.getpid), range(20 * slots)))
    rows = spark.range(slots).repartition(slots)
    assert rows.mapInArrow(lambda batches: batches, rows.schema, barrier=True).count() == slots
