"""Runs the main job, and says how long the training of each run waited for its ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import exchange
from mlflow import MlflowClient

SETTINGS = {"source": "sklearn:wine", "keras.epochs": 2, "xgboost.trees": 5, "gate.minimum_rows": 5}
WORKER = """
import json, sys
from flows.retrain import retrain
retrain(**json.loads(sys.argv[1]))
"""
"""What the engine of Prefect does in the process that a worker starts: import the flow, and call it."""


def ran(way: str, rate: float) -> dict[str, Any]:
    """One run, by a process of its own: its network at another rate than before, and its rows dealt anew."""
    settings = {**SETTINGS, "keras.rate": rate}
    if way == "rows":
        settings["split.salt"] = f"bench {rate}"
    if way in ("rows", "command"):
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        words = [sys.executable, "-m", "flows.retrain", *options]
    else:
        words = [sys.executable, "-c", WORKER, json.dumps(_nested(settings))]
    # Without the caps of a bench: threads are what the platform makes of them.
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    subprocess.run(words, check=True, env=environment)
    return _newest_training()


def _nested(settings: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        group, dot, field = name.partition(".")
        if dot:
            found.setdefault(group, {})[field] = value
        else:
            found[name] = value
    return found


def _newest_training() -> dict[str, Any]:
    client = MlflowClient(f"sqlite:///{Path(os.environ['ML_PLATFORM_HOME']) / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("retrain")
    wanted = {"filter_string": "attributes.run_name = 'train_keras'", "order_by": ["start_time DESC"]}
    newest = client.search_runs([experiment.experiment_id], max_results=1, **wanted)[0]
    seconds = newest.data.metrics["seconds.waiting_for_ranks"]
    return {"seconds": seconds, "value": [newest.data.params["ranks"], newest.data.params["keras.rate"]]}


if __name__ == "__main__":
    exchange.serve(ran)
