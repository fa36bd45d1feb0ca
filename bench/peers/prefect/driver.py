"""Plain Prefect, as its documentation says: "How to write and run tasks" for calls and `.submit`, and "How to
cache workflow step outputs" for the policy of unchanged inputs and code (the default one holds the run id). A
task that keeps nothing has NO_CACHE, which spares Prefect the hashing of its inputs."""

from __future__ import annotations

from typing import Any

import exchange
import prefect
from prefect.cache_policies import INPUTS, NO_CACHE, TASK_SOURCE
from prefect.events.worker import EventsWorker
from prefect.runtime import flow_run

executed: list[str] = []
TABLES: dict[int, Any] = {}


FUNCTIONS = exchange.one, exchange.add, exchange.join, exchange.total
CALLED = [prefect.task(function, cache_policy=NO_CACHE) for function in FUNCTIONS]
SUBMITTED = [task.submit for task in CALLED]
KEPT: dict[str, Any] = {"cache_policy": INPUTS + TASK_SOURCE, "persist_result": True}


TEXTS = [
    prefect.task(exchange.counted(body, executed), **KEPT)
    for body in (exchange.text, exchange.turned, exchange.length)
]


@prefect.task(**KEPT)
def hop(table: Any, at: int) -> Any:
    return table


def graph(shape: str, nodes: int, submit: bool = False) -> Any:
    found = exchange.walk(exchange.graph(shape, nodes), *(SUBMITTED if submit else CALLED))
    return [value.result() for value in found] if submit else found


def texts(nodes: int, size: int, edited: int | None = None) -> Any:
    return exchange.texts(nodes, size, edited, *TEXTS)


def hand_over(size: int, nodes: int) -> Any:
    table = TABLES[size]
    for at in range(nodes):
        table = hop(table, at)
    return len(table)


@prefect.flow(persist_result=False)
def flow(what: str, question: dict[str, Any]) -> tuple[float, float, int, Any, str]:
    """Timed inside: a flow run ends up to 2 s late, as its heartbeat wakes once a second. A call leaves
    events in a queue of this process; they are a part of it, and sent within the time."""
    work = {"graph": graph, "texts": texts, "hand_over": hand_over}[what]
    return *exchange.delivered(lambda: work(**question), EventsWorker.drain_all), str(flow_run.id)


def answer(what: str, **question: Any) -> dict[str, Any]:
    executed.clear()
    if what == "hand_over":
        TABLES.setdefault(question["size"], exchange.frame(question["size"]))
    called, seconds, grown, value, flow_run_id = flow(what, question)
    EventsWorker.drain_all()
    sent = {"flow_run": flow_run_id, "sent": question["nodes"], "executed": len(executed)}
    return {"seconds": seconds, "called": called, "grown": grown, "value": value, **sent}


exchange.serve(answer)
