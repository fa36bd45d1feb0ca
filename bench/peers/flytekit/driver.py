"""Flytekit, as its documentation says under "Running workflows locally" and "Caching": typed tasks in a
workflow that is called as a function, with `cache=True` and a version where results are kept."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import exchange
import pandas as pd
from flytekit import task, workflow

logging.disable(logging.INFO)
executed: list[str] = []


def variant(function: Any, **options: Any) -> Any:
    def called(*given: Any, **more: Any) -> Any:
        """Flytekit takes keywords alone."""
        return made(**dict(zip(made.python_interface.inputs, given, strict=False)), **more)

    made = task(function, **options)
    return called


CALLS = [variant(body) for body in (exchange.one, exchange.add, exchange.join, exchange.total)]
KEPT = [
    variant(exchange.counted(body, executed), cache=True, cache_version="1")
    for body in (exchange.text, exchange.turned, exchange.length)
]


@task
def hop(table: pd.DataFrame) -> pd.DataFrame:
    return table


@lru_cache
def workflow_of(what: str, nodes: int, shape: str, size: int, edited: int | None) -> Any:
    def graph() -> list[int]:
        return exchange.walk(exchange.graph(shape, nodes), *CALLS)

    def texts() -> int:
        return exchange.texts(nodes, size, edited, *KEPT)

    def hand_over(table: pd.DataFrame) -> pd.DataFrame:
        for _ in range(nodes):
            table = hop(table=table)
        return table

    made = workflow({"graph": graph, "texts": texts, "hand_over": hand_over}[what])
    made.compile()
    return made


def answer(
    what: str, nodes: int, shape: str = "", size: int = 0, edited: int | None = None
) -> dict[str, Any]:
    executed.clear()
    made = workflow_of(what, nodes, shape, size, edited)
    given = {"table": exchange.frame(size)} if what == "hand_over" else {}
    read = len if what == "hand_over" else lambda value: value
    return exchange.answered(lambda: made(**given), read, lambda: len(executed))


exchange.serve(answer)
