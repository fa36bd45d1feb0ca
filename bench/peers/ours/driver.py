"""This project, as its README says: `@dag`, a Prefect server, the store in a local folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import exchange
from graphs import files, graph, int_hops, table_hops, texts
from tables import write_table
from unrecorded import run_unrecorded

from ml_platform import Dag
from ml_platform.engine import prefect_door
from ml_platform.store.records import read_run, run_names


def run(dag: Dag[..., Any], **parameters: Any) -> dict[str, Any]:
    """A flow run, with what it did by its own record."""
    seconds, larger, value = exchange.grown(lambda: dag(**parameters))
    prefect_door.flush()
    states = [node["state"] for node in read_run(run_names()[0])["nodes"]]
    started = prefect_door._started
    flow_run = list(started)[-1] if started else ""
    said = {"flow_run": str(flow_run), "sent": started[flow_run] if flow_run else 0, "grown": larger}
    return {"seconds": seconds, "value": value, "executed": states.count("completed"), **said}


def hand_over(size: int, nodes: int, folder: str) -> dict[str, Any]:
    """A table of `size` bytes, or for 0 an int, from node to node."""
    if not size:
        return run(int_hops, number=0, nodes=nodes)
    table = write_table(Path(folder), size)
    answer = run(table_hops, table=table, nodes=nodes)
    return {**answer, "value": answer["value"] == table}


def plan(shape: str, nodes: int, stored: bool) -> dict[str, Any]:
    """A plan; with `stored` one in which every node is cached."""
    if stored:
        run_unrecorded(graph, shape=shape, nodes=nodes)
    seconds, planned = exchange.timed(lambda: graph.plan(shape=shape, nodes=nodes))
    return {"seconds": seconds, "value": planned.count("cached" if stored else "run") + planned.count("maybe")}


def answer(what: str, home: str, **question: Any) -> dict[str, Any]:
    os.environ["ML_PLATFORM_HOME"] = home
    asked = {"plan": plan, "hand_over": hand_over}
    dags = {"graph": graph, "texts": texts, "files": files}
    return asked[what](**question) if what in asked else run(dags[what], **question)


exchange.serve(answer)
