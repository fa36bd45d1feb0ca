"""Launches two ranks by `horovodrun`, by `horovod.spark.run` on a warm session, and by hand.

In our own environment: it holds the Horovod that both need.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import exchange

RANK = Path(__file__).parent / "rank.py"


def interpreters(ranks: int, folder: Path) -> list[list[int]]:
    """Two at once that import and initialise the same, and know nothing of each other: no launcher at all."""
    started = [subprocess.Popen([sys.executable, RANK, folder / str(at)]) for at in range(ranks)]
    codes = [process.wait() for process in started]
    if any(codes):
        raise RuntimeError("a rank failed")
    alone = [json.loads((folder / str(at)).read_text()) for at in range(ranks)]
    if alone != [[0, 1]] * ranks:
        raise RuntimeError(f"wanted ranks that stand alone, got {alone}")
    return [[at, ranks] for at in range(ranks)]


def horovodrun(ranks: int, folder: Path) -> list[list[int]]:
    command = [Path(sys.executable).with_name("horovodrun"), "--gloo", "-np", str(ranks)]
    subprocess.run([*command, sys.executable, RANK, folder], check=True)
    return sorted(json.loads(path.read_text()) for path in folder.iterdir())


@functools.cache
def session() -> Any:
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    return builder.config("spark.driver.memory", "2g").getOrCreate()


def spark_run(ranks: int, folder: Path) -> list[list[int]]:
    import horovod.spark

    def added_up() -> list[int]:
        import horovod.tensorflow as hvd
        import tensorflow as tf

        hvd.init()
        return [hvd.rank(), int(hvd.allreduce(tf.constant(1.0), op=hvd.Sum))]

    found: list[list[int]] = horovod.spark.run(added_up, num_proc=ranks, use_gloo=True, verbose=0)
    return found


LAUNCHERS = {"interpreters": interpreters, "horovodrun": horovodrun, "spark_run": spark_run}


def answer(what: str, ranks: int) -> dict[str, Any]:
    if what == "spark_run":
        session()
    with tempfile.TemporaryDirectory() as folder:
        seconds, found = exchange.timed(lambda: LAUNCHERS[what](ranks, Path(folder)))
    return {"seconds": seconds, "value": found}


if __name__ == "__main__":
    exchange.serve(answer)
