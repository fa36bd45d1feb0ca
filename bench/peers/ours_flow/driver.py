"""Runs the main job: how long the training of each run waits for its ranks, and what a run takes that finds
everything stored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
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


MODULES = """
import atexit, json, os, runpy, sys
atexit.register(lambda: open(sys.argv.pop(1), "w").write(json.dumps(list(sys.modules))))
runpy.run_module("flows.retrain", {}, "__main__", alter_sys=True)
"""
"""The command, which leaves the names of all that it has imported."""
PLAIN = """
import contextlib, importlib, json, pathlib, sys
for name in json.loads(pathlib.Path(sys.argv[1]).read_text()):
    if name != "__main__":
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
import prefect

@prefect.flow
def nothing():
    return 1

assert nothing() == 1
"""


def ran(way: str, rate: float) -> dict[str, Any]:
    """One run, by a process of its own, with its network at another rate than before."""
    settings = {**SETTINGS, "keras.rate": rate}
    if way == "command":
        words = _command(settings)
    else:
        words = [sys.executable, "-c", WORKER, json.dumps(_nested(settings))]
    _run(words)
    return _newest_training()


def settle(source: str) -> dict[str, Any]:
    """Run the main job, once more for the champion that it has by then, and once to see what it imports."""
    for _ in range(2):
        _run(_command({"source": source}))
    _run([sys.executable, "-c", MODULES, str(_modules()), "--source", source])
    return {}


def cached(source: str) -> dict[str, Any]:
    seconds = _run(_command({"source": source}))
    newest = max((_home() / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime)
    states = [node["state"] for node in json.loads((newest / "run.json").read_text())["nodes"]]
    files = sorted(file.name for file in newest.iterdir())
    return {"seconds": seconds, "executed": states.count("completed"), "value": files}


def plain() -> dict[str, Any]:
    return {"seconds": _run([sys.executable, "-c", PLAIN, str(_modules())])}


def _command(settings: dict[str, Any]) -> list[str]:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "flows.retrain", *options]


def _run(words: list[str]) -> float:
    """Seconds of a process."""
    # Without the caps of a bench: threads are what the platform makes of them.
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    began = time.perf_counter()
    subprocess.run(words, check=True, env=environment)
    return time.perf_counter() - began


def _home() -> Path:
    return Path(os.environ["ML_PLATFORM_HOME"])


def _modules() -> Path:
    return _home() / "modules.json"


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
    client = MlflowClient(f"sqlite:///{_home() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("retrain")
    wanted = {"filter_string": "attributes.run_name = 'train_keras'", "order_by": ["start_time DESC"]}
    newest = client.search_runs([experiment.experiment_id], max_results=1, **wanted)[0]
    seconds = newest.data.metrics["seconds.waiting_for_ranks"]
    return {"seconds": seconds, "value": [newest.data.params["ranks"], newest.data.params["keras.rate"]]}


def answer(what: str, **question: Any) -> dict[str, Any]:
    return {"ran": ran, "settle": settle, "cached": cached, "plain": plain}[what](**question)


if __name__ == "__main__":
    exchange.serve(answer)
