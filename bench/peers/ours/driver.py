"""Dags of this project."""

from __future__ import annotations

import os
from typing import Any

import exchange

from ml_platform import dag, task

one, add, join, total = map(task, (exchange.one, exchange.add, exchange.join, exchange.total))


def declare(shape, nodes):
    return exchange.walk(exchange.graph(shape, nodes), one, add, join, total)

@dag
def graph(shape: str, nodes: int) -> Any:
    return [value for value in exchange.walk(exchange.graph(shape, nodes), one, add, join, total)]
