"""Hamilton, as its documentation says: "Driver", "Caching" where results are kept, "Ad hoc modules" for one
made from a table of the graph, "Function modifiers" for `inject(group(…))` of many inputs."""

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
        given = names(parents) or [f"edit{at}"]
        first = (f"exchange.text({at}, {size}, {{}})", "int", "str")
        kinds = first, ("exchange.turned({})", "str", "str"), ("exchange.length({})", "str", "int")
        made.append(function(at, given, *kinds[min(len(parents), 2)]))
    return module(made).with_cache(path=folder).build()


def hand_over(nodes: int) -> Any:
    hops = [function(at, names([at - 1]), "{}", "object", "object") for at in range(1, nodes + 1)]
    return module(hops).build()


def answer(what: str, nodes: int, shape: str = "chains", size: int = 0, **more: Any) -> dict[str, Any]:
    executed.clear()
    given: dict[str, Any] = {}
    wanted = [f"n{at}" for at in exchange.sinks(exchange.graph(shape, nodes))]
    if what == "hand_over":
        made, given, wanted = hand_over(nodes), {"n0": exchange.frame(size)}, [f"n{nodes}"]
    elif what == "texts":
        made = texts(nodes, size, more["folder"])
        given = {f"edit{at}": int(at == more["edited"]) for at in range(exchange.CHAINS)}
    else:
        made = graph(shape, nodes)

    def value(found: dict[str, Any]) -> Any:
        values = [found[name] for name in wanted]
        return len(values[0]) if what == "hand_over" else values if what == "graph" else values[0]

    return exchange.answered(lambda: made.execute(wanted, inputs=given), value, lambda: len(executed))


exchange.serve(answer)
