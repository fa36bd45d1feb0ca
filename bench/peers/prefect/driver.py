"""Plain Prefect, as its documentation says.

Calls and `.submit`: "How to write and run tasks". Caching: "How to cache workflow step outputs", with the
policy it names for unchanged inputs and code; the default policy holds the run id and would run again.
A task that shares nothing is told so by NO_CACHE, which spares Prefect the hashing of its inputs.
"""

from __future__ import annotations

from typing import Any

import exchange
import prefect
from prefect.cache_policies import INPUTS, NO_CACHE, TASK_SOURCE
from prefect.events.worker import EventsWorker
from prefect.runtime import flow_run

executed: list[str] = []


FUNCTIONS = exchange.one, exchange.add, exchange.join, exchange.total
CALLED = [prefect.task(function, cache_policy=NO_CACHE) for function in FUNCTIONS]
SUBMITTED = [task.submit for task in CALLED]
KEPT: dict[str, Any] = {"cache_policy": INPUTS + TASK_SOURCE, "persist_result": True}


@prefect.task(**KEPT)
def text(at: int, size: int, edit: int) -> str:
    executed.append("text")
    return exchange.text(at, size, edit)


@prefect.task(**KEPT)
def turned(text: str) -> str:
    executed.append("turned")
    return exchange.turned(text)


@prefect.task(**KEPT)
def length(texts: list[str]) -> int:
    executed.append("length")
    return exchange.length(texts)


@prefect.task(**KEPT)
def hop(table: Any) -> Any:
    return table


@prefect.flow(persist_result=False)
def graph(shape: str, nodes: int, submit: bool = False) -> Any:
    found = exchange.walk(exchange.graph(shape, nodes), *(SUBMITTED if submit else CALLED))
    return [value.result() for value in found] if submit else found, str(flow_run.id)


@prefect.flow(persist_result=False)
def texts(nodes: int, size: int, edited: int | None = None) -> Any:
    return exchange.texts(nodes, size, edited, text, turned, length), str(flow_run.id)


@prefect.flow(persist_result=False, validate_parameters=False)
def hand_over(table: Any, nodes: int) -> Any:
    for _ in range(nodes):
        table = hop(table)
    return len(table), str(flow_run.id)


def answer(what: str, **question: Any) -> dict[str, Any]:
    executed.clear()
    if what == "hand_over":
        question["table"] = exchange.frame(question.pop("size"))
    flow = {"graph": graph, "texts": texts, "hand_over": hand_over}[what]
    seconds, grown, (value, flow_run_id) = exchange.grown(lambda: flow(**question))
    EventsWorker.drain_all()
    sent = {"flow_run": flow_run_id, "sent": question["nodes"], "executed": len(executed)}
    return {"seconds": seconds, "grown": grown, "value": value, **sent}


exchange.serve(answer)
