"""This project, as its README says: `@dag`, a Prefect server, the store in a local folder."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import exchange
from graphs import files, graph, int_hops, table_hops, texts
from tables import write_table
from unrecorded import run_unrecorded

from ml_platform import Dag, Dataset
from ml_platform.engine import prefect_door
from ml_platform.store.records import read_run, run_names


def run(dag: Dag[..., Any], **parameters: Any) -> dict[str, Any]:
    """A flow run, timed inside as the peer's, with what it did by its own record."""
    measured: list[Any] = []
    body = dag.fn

    @functools.wraps(body)
    def watched(*args: Any, **given: Any) -> Any:
        measured[:] = exchange.delivered(lambda: body(*args, **given), prefect_door.flush)
        return measured[-1]

    with patch.object(dag, "fn", watched):
        value = dag(**parameters)
    prefect_door.flush()
    states = [node["state"] for node in read_run(run_names()[0])["nodes"]]
    flow_run, sent = next(reversed(prefect_door._started.items()), ("", 0))
    said = {"flow_run": str(flow_run), "sent": sent, "called": measured[0], "grown": measured[2]}
    return {"seconds": measured[1], "value": value, "executed": states.count("completed"), **said}


def hand_over(size: int, nodes: int, folder: str) -> dict[str, Any]:
    """A table of `size` bytes, or for 0 an int, from node to node."""
    if not size:
        return run(int_hops, number=0, nodes=nodes)
    table = kept_table(Path(folder), size)
    answer = run(table_hops, table=table, nodes=nodes)
    return {**answer, "value": answer["value"] == table}


@functools.cache
def kept_table(folder: Path, size: int) -> Dataset:
    """Written once: what the disk still has to take would be in the time of others."""
    return write_table(folder, size)


def plan(shape: str, nodes: int) -> dict[str, Any]:
    seconds, planned = exchange.timed(lambda: graph.plan(shape=shape, nodes=nodes))
    counted = {verdict: planned.count(verdict) for verdict in ("run", "maybe", "cached")}
    return {"seconds": seconds, "value": counted["run"] + counted["maybe"], "cached": counted["cached"]}


def fill(shape: str, nodes: int) -> dict[str, Any]:
    """Store every result, so that a plan finds all of them."""
    run_unrecorded(graph, shape=shape, nodes=nodes)
    return {}


def answer(what: str, home: str, **question: Any) -> dict[str, Any]:
    os.environ["ML_PLATFORM_HOME"] = home
    asked = {"plan": plan, "fill": fill, "hand_over": hand_over}
    dags = {"graph": graph, "texts": texts, "files": files}
    return asked[what](**question) if what in asked else run(dags[what], **question)


exchange.serve(answer)
