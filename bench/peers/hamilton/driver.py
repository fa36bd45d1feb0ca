"""Hamilton, as its documentation says: "Driver" for plain runs, "Caching" for those that keep results.

The module is made from a table of the graph ("Ad hoc modules"); many inputs of one function stand in
`inject(group(…))` ("Function modifiers").
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import exchange
from hamilton import ad_hoc_utils, driver

sys.setrecursionlimit(20_000)  # it walks a chain by recursion
executed = sys.executed = []  # generated modules say here what ran
HEAD = "import sys, exchange\nfrom hamilton.function_modifiers import group, inject, source\n"


def function(at: int, given: list[str], body: str, type_: str, returned: str) -> str:
    """Source of a function whose parameters name what it needs, as Hamilton wants it."""
    grouped = len(given) > 2
    modifier = f"@inject(xs=group({', '.join(f'source({name!r})' for name in given)}))\n" if grouped else ""
    parameters = f"xs: list[{type_}]" if grouped else ", ".join(f"{name}: {type_}" for name in given)
    passed = "xs" if grouped else ", ".join(given)
    call = f" sys.executed.append({at})\n return {body.format(passed)}\n"
    return f"{modifier}def n{at}({parameters}) -> {returned}:\n{call}"


def module(functions: list[str]) -> Any:
    return driver.Builder().with_modules(ad_hoc_utils.module_from_source("\n".join([HEAD, *functions])))


def names(parents: list[int]) -> list[str]:
    return [f"n{parent}" for parent in parents]


@lru_cache
def graph(shape: str, nodes: int) -> Any:
    bodies = [f"exchange.{name}({{}})" for name in ("one", "add", "join", "total")]
    parents = exchange.graph(shape, nodes)
    made = [function(at, names(p), bodies[min(len(p), 3)], "int", "int") for at, p in enumerate(parents)]
    return module(made).build()


def texts(nodes: int, size: int, folder: str) -> Any:
    made = []
    for at, parents in enumerate(exchange.graph("chains", nodes)):
        if not parents:
            made.append(function(at, [f"edit{at}"], f"exchange.text({at}, {size}, {{}})", "int", "str"))
        elif len(parents) == 1:
            made.append(function(at, names(parents), "exchange.turned({})", "str", "str"))
        else:
            made.append(function(at, names(parents), "exchange.length({})", "str", "int"))
    return module(made).with_cache(path=folder).build()


def hand_over(nodes: int) -> Any:
    hops = [function(at, names([at - 1]), "{}", "object", "object") for at in range(1, nodes + 1)]
    return module(hops).build()


def answer(
    what: str, nodes: int, shape: str = "chains", size: int = 0, edited: int | None = None, folder: str = ""
) -> dict[str, Any]:
    executed.clear()
    given: dict[str, Any] = {}
    wanted = [f"n{at}" for at in exchange.sinks(exchange.graph(shape, nodes))]
    if what == "hand_over":
        made, given, wanted = hand_over(nodes), {"n0": exchange.frame(size)}, [f"n{nodes}"]
    elif what == "texts":
        made, given = (
            texts(nodes, size, folder),
            {f"edit{at}": int(at == edited) for at in range(exchange.CHAINS)},
        )
    else:
        made = graph(shape, nodes)
    seconds, grown, found = exchange.grown(lambda: made.execute(wanted, inputs=given))
    values = [found[name] for name in wanted]
    value = {"graph": values, "texts": values[0], "hand_over": len(values[0]) if what == "hand_over" else 0}[
        what
    ]
    return {"seconds": seconds, "grown": grown, "value": value, "executed": len(executed)}


exchange.serve(answer)
