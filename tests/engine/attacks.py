"""Dags whose functions do something while they are planned: `python -m tests.engine.attacks NAME FOLDER`.

`each_in_a_fork` of a process that has loaded the libraries costs a tenth of a process for each.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import prefect

from ml_platform.engine import dag, task
from ml_platform.resources.leases import current_leases
from ml_platform.specs.resources import SparkSpec


@task
def touch(folder: str) -> str:
    Path(folder, "evidence").write_text("ran")
    return folder


@prefect.task
def plain_task(folder: str) -> str:
    return folder


def body_through_the_engine(folder: str) -> None:
    touch.fn(folder)


def body_without_the_wrapper(folder: str) -> None:
    touch.__wrapped__(folder)


def body_as_python_sees_it(folder: str) -> None:
    touch.function(folder)


def lease(folder: str) -> None:
    with current_leases().open({"spark": SparkSpec()}, task="attack"):
        Path(folder, "evidence").touch()


def lease_in_a_thread(folder: str) -> None:
    thread = threading.Thread(target=lease, args=(folder,))
    thread.start()
    thread.join()


def a_process(folder: str) -> None:
    subprocess.run(["touch", f"{folder}/evidence"], check=True)


def a_file(folder: str) -> None:
    Path(folder, "evidence").write_text("written")


def mlflow_write(folder: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/evidence.db")
    mlflow.log_param("evidence", 1)


def prefect_task(folder: str) -> None:
    plain_task(folder)


def spark_session(folder: str) -> None:
    from pyspark.sql import SparkSession

    SparkSession.builder.master("local[1]").getOrCreate()
    Path(folder, "evidence").touch()


def arrow_file(folder: str) -> None:
    """C++ opens the file: Python's audit never hears of it."""
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"x": [1]}), f"{folder}/written.parquet")
    Path(folder, "evidence").touch()


def by_preflight(folder: str) -> None:
    """What the dag's own preflight tries: see `checked`."""


ATTACKS: dict[str, Callable[[str], None]] = {
    attack.__name__: attack
    for attack in (
        body_through_the_engine,
        body_without_the_wrapper,
        body_as_python_sees_it,
        lease,
        lease_in_a_thread,
        a_process,
        a_file,
        mlflow_write,
        prefect_task,
        spark_session,
        arrow_file,
        by_preflight,
    )
}


def checked(name: str, folder: str) -> None:
    if name == by_preflight.__name__:
        touch.fn(folder)


@dag(preflight=checked)
def attacked(name: str, folder: str) -> str:
    """An attack that would swallow whatever is raised."""
    with contextlib.suppress(BaseException):
        ATTACKS[name](folder)
    return touch(folder)


def attack(name: str, folder: str) -> None:
    with contextlib.suppress(BaseException):
        attacked.plan(name=name, folder=folder)
    Path(folder, "survived").touch()


def each_in_a_fork(root: str) -> None:
    """Every attack in a folder of its name; prints a line of JSON for each: name, exit code, stderr."""
    for name in ATTACKS:
        folder = Path(root, name)
        folder.mkdir()
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(writable, 2)
            os.environ["ML_PLATFORM_HOME"] = str(folder / "home")
            attack(name, str(folder))
            os._exit(0)
        os.close(writable)
        with os.fdopen(readable) as pipe:
            said = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([name, code, said]), flush=True)


if __name__ == "__main__":
    each_in_a_fork(sys.argv[1]) if len(sys.argv) == 2 else attack(*sys.argv[1:])
