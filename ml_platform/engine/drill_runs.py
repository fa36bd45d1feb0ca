"""The runs of a crash drill: processes of their own, forked from one that has done the imports.

`python -m ml_platform.engine.drill_runs`, started by `ml_platform.engine.drill`. An interpreter that imports
Prefect, PySpark and what a dag uses takes a processor some seconds, forking a process that did some
hundredths. This process itself runs nothing: no thread of a library and no connection is there when it
forks. What else a run imports, and its ranks, is learnt from the first one that comes to its end.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ml_platform.engine.keys import as_declared, identity, task_code
from ml_platform.engine.plan import EngineSpec
from ml_platform.resources.horovod.nursery import fork_ahead, variables_of_ranks
from ml_platform.resources.horovod_build import horovod_available
from ml_platform.specs.base import Spec
from ml_platform.specs.registry import load_named
from ml_platform.store import crash
from ml_platform.store.records import read_run, run_names
from ml_platform.worker.forking import begin_anew
from ml_platform.worker.lifeline import die_with
from ml_platform.worker.session import import_libraries

if TYPE_CHECKING:
    from ml_platform.engine.dag import Dag


class Order(Spec):
    """One run that is wanted."""

    home: Path
    output: Path
    """Where it leaves an `Outcome`, if it comes to its end."""
    points: Path | None = None
    """Points at which it is not killed any more. None: it is not killed at all."""


class Outcome(Spec):
    """What a run left that came to its end."""

    output: Any
    """What the dag gave: its identity, see `ml_platform.engine.keys`."""
    modules: tuple[str, ...]
    ranks: dict[str, str] | None
    """What its ranks had in their environment beside its own. None: it had no ranks."""


def main() -> None:
    """Fork a run for each order on stdin. Says its number, and then its exit code, a line each."""
    parser = argparse.ArgumentParser(prog="python -m ml_platform.engine.drill_runs", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="process that must live")
    parser.add_argument("dag", help="module:name")
    parser.add_argument("parameters", help="JSON")
    args = parser.parse_args()
    die_with(args.parent)
    # What libraries print must not run into the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        dag = load_named(args.dag)
        with as_declared():
            _serve(dag, dag.validate_parameters(json.loads(args.parameters)), answers)


def _serve(dag: Dag[..., Any], parameters: dict[str, Any], answers: TextIO) -> None:
    _read_code(dag, parameters)
    ranks: dict[str, str] | None = None
    for line in sys.stdin:
        order = Order.model_validate_json(line)
        gc.collect()
        gc.freeze()
        this = os.getpid()
        if (pid := os.fork()) == 0:
            _become_run(this)
            if ranks is not None:
                fork_ahead(ranks)
            _run(dag, parameters, order)
            break  # and end as an interpreter does
        print(pid, file=answers, flush=True)
        _, status = os.waitpid(pid, 0)
        if order.output.exists():
            outcome = Outcome.model_validate_json(order.output.read_bytes())
            _import(outcome.modules)
            if (ranks := outcome.ranks) is not None:
                _import_for(ranks)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _read_code(dag: Dag[..., Any], parameters: dict[str, Any]) -> None:
    """Every run plans with the same code: it is read once."""
    for node in dag.graph(**parameters).nodes:
        task_code(node.task.function)


def _import(modules: Iterable[str]) -> None:
    # Arrow's allocator has a thread, which knows about forks.
    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    for name in modules:
        if name not in sys.modules:
            with suppress(ImportError):  # made by another module, under a name that no file has
                importlib.import_module(name)


def _import_for(ranks: Mapping[str, str]) -> None:
    before = dict(os.environ)
    os.environ.update(ranks)
    try:
        import_libraries(horovod=horovod_available().ok)
    finally:
        os.environ.clear()
        os.environ.update(before)


def _become_run(parent: int) -> None:
    """What the interpreter's start would have done."""
    die_with(parent)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    begin_anew()


def _run(dag: Dag[..., Any], parameters: dict[str, Any], order: Order) -> None:
    os.environ["ML_PLATFORM_HOME"] = str(order.home)
    if order.points is not None:
        crash.arm(order.points)
    output = dag(**{**parameters, "engine": _resuming()})
    outcome = Outcome(
        output=identity(output, "output"), modules=tuple(sys.modules), ranks=variables_of_ranks()
    )
    order.output.write_text(outcome.model_dump_json())


def _resuming() -> EngineSpec:
    """Goes on with the run that was killed last, if it came as far as to have a record."""
    for run in run_names():
        if read_run(run)["state"] == "killed":
            return EngineSpec(mode="resume", run=run)
    return EngineSpec()


if __name__ == "__main__":
    main()
