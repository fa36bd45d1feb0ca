"""Hamilton, as its documentation says: "Driver" for plain runs, "Caching" for those that keep results.

Functions are made from a table of the graph ("Ad hoc modules"); many inputs of one function stand in
`inject(group(…))` ("Function modifiers").
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import exchange
from hamilton import ad_hoc_utils, driver
from hamilton.function_modifiers import group, inject, source

sys.setrecursionlimit(20_000)  # it walks a chain by recursion
executed: list[int] = []


def function(at: int, parents: list[int], body: Callable[..., Any], type_: str) -> Callable[..., Any]:
    """A module-level function whose parameters name its parents, as Hamilton wants it."""
    names = [f"n{parent}" for parent in parents]
    grouped = len(parents) > 2
    given = f"xs: list[{type_}]" if grouped else ", ".join(f"{name}: {type_}" for name in names)
    passed = "xs" if grouped else ", ".join(names)
    returned = "int" if body is exchange.length else type_
    space = {"body": body, "executed": executed}
    exec(f"def n{at}({given}) -> {returned}:\n executed.append({at})\n return body({passed})", space)
    made = space[f"n{at}"]
    made.__module__ = "__main__"
    return inject(xs=group(*map(source, names)))(made) if grouped else made


@lru_cache
def built(shape: str, nodes: int) -> Any:
    bodies = exchange.one, exchange.add, exchange.join, exchange.total
    parents = exchange.graph(shape, nodes)
    functions = [function(at, p, bodies[min(len(p), 3)], "int") for at, p in enumerate(parents)]
    return driver.Builder().with_modules(ad_hoc_utils.create_temporary_module(*functions)).build()


def kept(nodes: int, size: int, edited: int | None, folder: str) -> Any:
    parents = exchange.graph("chains", nodes)
    firsts = [lambda at=at: exchange.text(at, size, int(at == edited)) for at in range(exchange.CHAINS)]
    bodies = [*firsts, *[exchange.turned] * (nodes - 1 - exchange.CHAINS), exchange.length]
    functions = [function(at, p, body, "str") for at, (p, body) in enumerate(zip(parents, bodies, strict=True))]
    module = ad_hoc_utils.create_temporary_module(*functions)
    return driver.Builder().with_modules(module).with_cache(path=folder).build()


def hop(table: Any) -> Any:
    return table


def answer(what: str, nodes: int, shape: str = "", size: int = 0, **more: Any) -> dict[str, Any]:
    executed.clear()
    if what == "hand_over":
        functions = [function(at, [at - 1] if at else [], hop, "object") for at in range(1, nodes + 1)]
        made = driver.Builder().with_modules(ad_hoc_utils.create_temporary_module(*functions)).build()
        given, wanted = {"n0": exchange.frame(size)}, [f"n{nodes}"]
    else:
        made = built(shape, nodes) if what == "graph" else kept(nodes, size, **more)
        given, wanted = {}, [f"n{at}" for at in exchange.sinks(exchange.graph(shape or "chains", nodes))]
    seconds, grown, found = exchange.grown(lambda: made.execute(wanted, inputs=given))
    values = list(found.values()) if isinstance(found, dict) else found
    value = values if what == "graph" else values[0]
    value = len(value) if what == "hand_over" else value
    return {"seconds": seconds, "grown": grown, "value": value, "executed": len(executed)}


exchange.serve(answer)
