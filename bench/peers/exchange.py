"""What every driver has: questions on stdin, answers through a pipe, one JSON object a line; and the graphs.

Standard library alone: it is imported in each peer's own environment.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

CHAINS = 10


def serve(answer: Callable[..., dict[str, Any]]) -> None:
    """Answer until stdin ends."""
    with os.fdopen(int(os.environ["BENCH_ANSWERS"]), "w", buffering=1) as answers:
        for line in sys.stdin:
            answers.write(json.dumps(answer(**json.loads(line))) + "\n")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result. What came before is collected first, so that nobody pays for another's rubbish."""
    gc.collect()
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def grown(work: Callable[[], Any]) -> tuple[float, int, Any]:
    """Seconds, by how many bytes this process was larger meanwhile than before, and the result."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory("VmRSS")
    seconds, result = timed(work)
    return seconds, max(0, _memory("VmHWM") - before), result


def peak() -> int:
    """The most bytes that this process held since `grown` began to look."""
    return _memory("VmHWM")


def delivered(work: Callable[[], Any], send: Callable[[], Any]) -> tuple[float, float, int, Any]:
    """Seconds until it returns, seconds until what it left in queues is sent too, growth, and the result."""
    called: list[float] = []

    def whole() -> Any:
        began = time.perf_counter()
        result = work()
        called.append(time.perf_counter() - began)
        send()
        return result

    seconds, larger, result = grown(whole)
    return called[0], seconds, larger, result


def answered(
    work: Callable[[], Any], value: Callable[[Any], Any], executed: Callable[[], int]
) -> dict[str, Any]:
    """What a driver says of a piece of work; `value` reads the result, outside of the time."""
    seconds, larger, result = grown(work)
    return {"seconds": seconds, "grown": larger, "value": value(result), "executed": executed()}


def counted(function: Callable[..., Any], into: list[str]) -> Callable[..., Any]:
    """The function, noting each time that it ran."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        into.append(function.__name__)
        return function(*args, **kwargs)

    return run


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def graph(shape: str, nodes: int) -> list[list[int]]:
    """Parents of each node, in an order in which they can run."""
    if shape == "chain":
        return [[at - 1] if at else [] for at in range(nodes)]
    if shape == "fan":
        return [[], *([0] for _ in range(nodes - 2)), list(range(1, nodes - 1))]
    if shape == "layers":
        width = nodes // 10
        first = [[] for _ in range(width)]
        rest = [
            [(layer - 1) * width + at, (layer - 1) * width + (at + 1) % width]
            for layer in range(1, 10)
            for at in range(width)
        ]
        return [*first, *rest]
    if shape == "chains":
        # Side by side, and one node that joins them.
        side_by_side = [[at - CHAINS] if at >= CHAINS else [] for at in range(nodes - 1)]
        return [*side_by_side, list(range(nodes - 1 - CHAINS, nodes - 1))]
    raise ValueError(shape)


def sinks(parents: list[list[int]]) -> list[int]:
    """Nodes that nobody needs."""
    needed = {parent for node in parents for parent in node}
    return [at for at in range(len(parents)) if at not in needed]


# `at` makes every call of a graph another one: equal calls might be done once.
def one(at: int = 0) -> int:
    return 1


def add(x: int, at: int = 0) -> int:
    return x + 1


def join(x: int, y: int, at: int = 0) -> int:
    return max(x, y) + 1


def total(xs: list[int], at: int = 0) -> int:
    return sum(xs)


def text(at: int, size: int, edit: int) -> str:
    """The output of a node: `size` characters."""
    return f"{at}.{edit}.".ljust(size, "x")


def turned(text: str) -> str:
    """Another text of the same size."""
    return text[1:] + text[:1]


def length(texts: list[str]) -> int:
    return sum(map(len, texts))


def texts(nodes: int, size: int, edited: int | None, text: Any, turned: Any, length: Any) -> Any:
    """The graph of the unchanged re-run: chains side by side, whose ends are joined.

    Args:
        edited: The chain whose first node is another than before.
    """
    values: list[Any] = []
    for at, needed in enumerate(graph("chains", nodes)[:-1]):
        values.append(turned(values[needed[0]]) if needed else text(at, size, int(at == edited)))
    return length(values[-CHAINS:])


def frame(size: int) -> Any:
    """A pandas table of about `size` bytes; what libraries that pass values hand over."""
    import numpy as np
    import pandas as pd

    return pd.DataFrame(np.random.default_rng(0).random((max(1, size // 128), 16))).rename(columns=str)


def walk(
    parents: list[list[int]], one: Any = one, add: Any = add, join: Any = join, total: Any = total
) -> Any:
    """Call the four functions along a graph, whatever they are: plain functions, tasks, declarations."""
    values: list[Any] = []
    for at, needed in enumerate(parents):
        given = [values[parent] for parent in needed]
        call = (one, add, join, total)[min(len(given), 3)]
        values.append(call(given, at=at) if call is total else call(*given, at=at))
    return [values[at] for at in sinks(parents)]
