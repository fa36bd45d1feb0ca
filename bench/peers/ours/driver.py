"""Dags of this project, as its README writes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import exchange
import memory

from ml_platform import Contract, Dataset, dag, task
from ml_platform.engine.prefect_door import flow_runs_of_this_process, flush
from ml_platform.specs.base import Location, Spec
from ml_platform.store.records import read_run, run_names

one, add, join, total = map(task, (exchange.one, exchange.add, exchange.join, exchange.total))
text, turned, length = map(task, (exchange.text, exchange.turned, exchange.length))


class File(Spec):
    """A file that a task wrote; its digest says what is in it."""

    uri: Location
    digest: str


def _write(folder: str, name: str, size: int) -> File:
    path = Path(folder, name.replace("/", "-"))
    path.write_bytes(name.encode().ljust(size, b"x"))
    return File(uri=path.as_uri(), digest=name)


@task
def first_file(at: int, size: int, edit: int, folder: str) -> File:
    return _write(folder, f"{at}.{edit}.0", size)


@task
def next_file(file: File, size: int, folder: str) -> File:
    stem, _, step = file.digest.rpartition(".")
    return _write(folder, f"{stem}.{int(step) + 1}", size)


@task
def count(files: list[File]) -> int:
    return len(files)


@task
def hop(table: Dataset) -> Dataset:
    return table


@dag
def graph(shape: str, nodes: int) -> Any:
    return exchange.walk(exchange.graph(shape, nodes), one, add, join, total)


@dag
def texts(nodes: int, size: int, edited: int | None) -> Any:
    return exchange.texts(nodes, size, edited, text, turned, length)


@dag
def files(nodes: int, size: int, edited: int | None, folder: str) -> Any:
    first = lambda at, size, edit: first_file(at, size, edit, folder)  # noqa: E731
    return exchange.texts(nodes, size, edited, first, lambda file: next_file(file, size, folder), count)


@dag
def hops(table: Dataset | int, nodes: int) -> Any:
    for _ in range(nodes):
        table = hop(table) if isinstance(table, Dataset) else add(table)
    return table
