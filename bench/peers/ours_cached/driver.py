"""Runs the main job when everything is stored, and an empty flow of Prefect with the same imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import exchange

HOME = Path(os.environ["ML_PLATFORM_HOME"])
MODULES = HOME / "modules.json"
COMMAND = """
import atexit, json, runpy, sys
from pathlib import Path
file = Path(sys.argv.pop(1))
atexit.register(lambda: file.write_text(json.dumps(list(sys.modules))))
runpy.run_module("flows.retrain", {}, "__main__", alter_sys=True)
"""
"""The command, which leaves the names of all that it has imported."""
PLAIN = """
import contextlib, importlib, json, sys
from pathlib import Path
for name in json.loads(Path(sys.argv[1]).read_text()):
    if name != "__main__":
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
import prefect

@prefect.flow
def nothing():
    return 1

assert nothing() == 1
"""


def settle(source: str) -> dict[str, Any]:
    """Run it, once more for the champion that it has by then, and once to see what it imports."""
    for _ in range(2):
        seconds_of("-m", "flows.retrain", "--source", source)
    seconds_of("-c", COMMAND, str(MODULES), "--source", source)
    return {}


def cached(source: str) -> dict[str, Any]:
    seconds = seconds_of("-m", "flows.retrain", "--source", source)
    newest = max((HOME / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime)
    states = [node["state"] for node in json.loads((newest / "run.json").read_text())["nodes"]]
    files = sorted(file.name for file in newest.iterdir())
    return {"seconds": seconds, "executed": states.count("completed"), "value": files}


def plain() -> dict[str, Any]:
    return {"seconds": seconds_of("-c", PLAIN, str(MODULES))}


def seconds_of(*words: str) -> float:
    """Of a process, without the caps of a bench: threads are what the platform makes of them."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, env=environment)
    return time.perf_counter() - began


def answer(what: str, **question: Any) -> dict[str, Any]:
    return {"settle": settle, "cached": cached, "plain": plain}[what](**question)


exchange.serve(answer)
