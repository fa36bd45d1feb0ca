"""A study as `flows.tune` declares one: a task asks, a task tries, on Spark executors or on warm ranks."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import exchange
from studies import on_executors, on_ranks, spans

from ml_platform import Dag
from ml_platform.engine import prefect_door
from ml_platform.resources.spark import open_session
from ml_platform.specs.placements import SparkPlacement
from ml_platform.specs.tuning import StudySpec

session = ExitStack()


def run(dag: Dag[..., Any], study: StudySpec, **parameters: Any) -> dict[str, Any]:
    """A flow run, timed inside: it ends up to 2 s late, as its heartbeat wakes once a second."""
    spans.clear()
    measured: list[Any] = []
    body = dag.fn

    @functools.wraps(body)
    def watched(*args: Any, **given: Any) -> Any:
        measured[:] = exchange.delivered(lambda: body(*args, **given), prefect_door.flush)
        return measured[-1]

    with patch.object(dag, "fn", watched):
        trials = dag(study, **parameters)
    prefect_door.flush()
    # Trials on executors are light: the flow run has no task runs.
    flow_run, sent = next(reversed(prefect_door._started.items()), ("", 0))
    complete = sum(trial.state == "complete" for trial in trials)
    said = {"flow_run": str(flow_run), "sent": sent, "value": complete}
    return {"seconds": measured[1], "called": measured[0], **said}


def prepare() -> dict[str, Any]:
    """What is there before a study: the Spark session, and MLflow's database."""
    session.enter_context(open_session(SparkPlacement(master="local[2]")))
    run(on_executors, StudySpec(trials=4, seed=0), seconds=0.1)
    return {}


def executors(trials: int, parallel: int, seconds: float, seed: int) -> dict[str, Any]:
    study = StudySpec(trials=trials, parallel=parallel, seed=seed, pruner="none")
    found = run(on_executors, study, seconds=seconds)
    # Not of the search: declaring and planning it, and the end of the flow run.
    first, last = min(began for began, _ in spans), max(ended for _, ended in spans)
    return {**found, "called": last - first}


def ranks(trials: int, ranks: int, seed: int) -> dict[str, Any]:
    """From the end of the first trial, which starts the ranks, to that of the last."""
    study = StudySpec(trials=trials + 1, seed=seed, pruner="none")
    found = run(on_ranks, study, ranks=ranks)
    ended = sorted(ended for _, ended in spans)
    return {**found, "seconds": ended[-1] - ended[0], "value": found["value"] - 1}


ANSWERS = {"prepare": prepare, "executors": executors, "ranks": ranks}


def answer(what: str, **question: Any) -> dict[str, Any]:
    return ANSWERS[what](**question)


if __name__ == "__main__":
    with session:
        exchange.serve(answer)
