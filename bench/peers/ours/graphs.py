"""The graphs as dags of this project."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import exchange

from ml_platform import Dataset, dag, task
from ml_platform.specs.base import Location, Spec

one, add, join, total = map(task, (exchange.one, exchange.add, exchange.join, exchange.total))
text, turned, length = map(task, (exchange.text, exchange.turned, exchange.length))


class File(Spec):
    """A file that a task wrote, and what is in it."""

    uri: Location
    content: str


def _write(folder: str, content: str, size: int) -> File:
    path = Path(folder, content)
    path.write_bytes(content.encode().ljust(size, b"x"))
    return File(uri=path.as_uri(), content=content)


@task
def first_file(at: int, size: int, edit: int, folder: str) -> File:
    return _write(folder, f"{at}.{edit}.0", size)


@task
def next_file(file: File, size: int, folder: str) -> File:
    stem, _, step = file.content.rpartition(".")
    return _write(folder, f"{stem}.{int(step) + 1}", size)


@task
def count(files: list[File]) -> int:
    return len(files)


@task
def hop(table: Dataset, at: int) -> Dataset:
    return table


@dag
def graph(shape: str, nodes: int) -> Any:
    return exchange.walk(exchange.graph(shape, nodes), one, add, join, total)


@dag
def texts(nodes: int, size: int, edited: int | None) -> Any:
    return exchange.texts(nodes, size, edited, text, turned, length)


@dag
def files(nodes: int, size: int, edited: int | None, folder: str) -> Any:
    first, following = partial(first_file, folder=folder), partial(next_file, size=size, folder=folder)
    return exchange.texts(nodes, size, edited, first, following, count)


@dag
def table_hops(table: Dataset, nodes: int) -> Any:
    handed = hop(table, 0)
    for at in range(1, nodes):
        handed = hop(handed, at)
    return handed


@dag
def int_hops(number: int, nodes: int) -> Any:
    handed = add(number)
    for _ in range(nodes - 1):
        handed = add(handed)
    return handed
