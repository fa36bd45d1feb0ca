"""Hyperopt on Spark, as its page "Scaling out search with Apache Spark" says: `SparkTrials` with as many
trials side by side as there are slots; `max_queue_len` as the docstring of `fmin` advises for that."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import exchange
import numpy as np
import trial
from hyperopt import SparkTrials, fmin, hp, tpe


@functools.cache
def session() -> Any:
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    return builder.config("spark.driver.memory", "2g").getOrCreate()


def answer(trials: int, parallel: int, seconds: float, seed: int) -> dict[str, Any]:
    found = SparkTrials(parallelism=parallel, spark_session=session())
    took, _ = exchange.timed(
        lambda: fmin(
            functools.partial(trial.loss, seconds=seconds),
            hp.uniform("x", 0, 1),
            algo=tpe.suggest,
            max_evals=trials,
            max_queue_len=parallel,
            trials=found,
            rstate=np.random.default_rng(seed),
            show_progressbar=False,
            verbose=False,
        )
    )
    return {"seconds": took, "value": found.count_successful_trials()}


exchange.serve(answer)
