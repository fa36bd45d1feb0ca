"""Dags that meet in one process or in several: run with `python -m tests.engine.together WHAT FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform import Spark
from ml_platform.engine import TaskEvent, dag, task, watching
from ml_platform.errors import TaskTimeoutError
from ml_platform.resources.leases import KINDS
from tests.counters import CounterLease, CounterSpec
from tests.engine.small import lines_of, note

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DEADLINE_S = 120.0


def wait_for(path: Path) -> None:
    """Until the file is there."""
    deadline = time.monotonic() + DEADLINE_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} never came")
        time.sleep(0.01)


@task
def once(folder: str) -> int:
    """Counts its runs, and ends only after somebody has told it to."""
    note.fn(f"{folder}/ran")
    wait_for(Path(folder, "gate"))
    return 42


@dag
def meeting(folder: str) -> int:
    return once(folder)


@task
def count_runs(folder: str) -> dict[str, int]:
    """Something else each time."""
    note.fn(f"{folder}/ran")
    return {"runs": lines_of(Path(folder, "ran")), "same": 1}


@dag
def restless(folder: str) -> dict[str, int]:
    return count_runs(folder)


def opening_the_gate(folder: Path) -> Callable[[TaskEvent], None]:
    """A watcher that lets the first one end when the second one waits for it."""

    def watch(event: TaskEvent) -> None:
        if "waiting for its result" in event.message:
            (folder / "gate").touch()

    return watch


def meet(folder: Path) -> None:
    with watching(opening_the_gate(folder)):
        (folder / "output").write_text(str(meeting(folder=str(folder))))


@task
def endless(folder: str, things: list[str] = CounterSpec()) -> int:  # type: ignore[assignment]
    """Works until it is stopped, and says so."""
    try:
        Path(folder).mkdir(exist_ok=True)
        Path(folder, "started").touch()
        wait_for(Path(folder, "never"))
        return 1
    finally:
        Path(folder, "unwound").touch()


@dag
def stuck(folder: str) -> list[int]:
    one = endless.with_options(name="one")(f"{folder}/one")
    two = endless.with_options(name="two")(f"{folder}/two")
    return [one, note(f"{folder}/after", two)]


def be_stopped(folder: Path) -> None:
    KINDS["CounterSpec"] = "tests.counters:CounterLease"
    try:
        stuck(folder=str(folder))
    finally:
        (folder / "happened").write_text("\n".join(CounterLease.happened))


@task(retries=0)
def on_spark(spark: SparkSession = Spark()) -> int:
    return int(spark.range(3).count())


@dag
def on_a_spark_that_is_late() -> int:
    return on_spark.with_options(name="impatient", timeout_seconds=1.0)()


@dag
def on_a_spark_that_never_comes() -> int:
    return on_spark()


def wait_for_spark(folder: Path) -> None:
    """A task whose time is over before Spark is there; then one that waits."""
    with suppress(TaskTimeoutError):
        on_a_spark_that_is_late()
    os.environ["SUBMITTED"] = str(folder / "submitted again")
    on_a_spark_that_never_comes()


@task(cache=False)
def hangs(folder: str) -> int:
    """Waits in C, where no exception reaches it."""
    Path(folder, "hangs").touch()
    time.sleep(3600)
    return 1


@dag
def hanging(folder: str) -> list[int]:
    return [hangs(folder), endless.with_options(name="other")(f"{folder}/other")]


def hang(folder: Path) -> None:
    KINDS["CounterSpec"] = "tests.counters:CounterLease"
    hanging(folder=str(folder))


BUSY, PLANNING = threading.Event(), threading.Event()
RAN = (threading.Event(), threading.Event())


@task
def until_planning(n: int) -> int:
    BUSY.set()
    PLANNING.wait(DEADLINE_S)
    return n


@task
def meanwhile(n: int, at: int) -> int:
    RAN[at].set()
    return n


@dag
def busy(n: int = 1) -> list[int]:
    first = until_planning(n)
    return [meanwhile(first, 0), meanwhile(first, 1)]


@dag
def planned(n: int = 1) -> int:
    PLANNING.set()
    for ran in RAN:
        if not ran.wait(DEADLINE_S):
            raise TimeoutError("the other run stands still")
    return note("nowhere", n)


def plan_meanwhile(folder: Path) -> None:
    """Plan one dag while another runs, whose tasks start threads in the meantime."""
    running = threading.Thread(target=busy)
    running.start()
    BUSY.wait(DEADLINE_S)
    planned.plan()
    running.join()
    (folder / "survived").touch()


if __name__ == "__main__":
    # A shell that runs the tests in the background hands down that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    done = {"meet": meet, "be_stopped": be_stopped, "plan_meanwhile": plan_meanwhile, "hang": hang}
    done |= {"wait_for_spark": wait_for_spark}
    done[sys.argv[1]](Path(sys.argv[2]))
