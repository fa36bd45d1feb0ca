"""Dagster, as its documentation says under "Testing jobs": `execute_in_process` with an ephemeral instance
and values kept in memory (`mem_io_manager`), which is the fastest way that it describes."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import dagster as dg
import exchange

logging.disable(logging.INFO)


@dg.op
def one() -> int:
    return exchange.one()


@dg.op
def add(x: int) -> int:
    return exchange.add(x)


@dg.op
def join(x: int, y: int) -> int:
    return exchange.join(x, y)


@dg.op
def total(xs: list[int]) -> int:
    return exchange.total(xs)


@dg.op
def hop(table):
    return table


OPS = (one, add, join, total)
PARAMETERS: tuple[tuple[str, ...], ...] = ((), ("x",), ("x", "y"))


def job(invocations: list[tuple[Any, str, dict[str, Any]]], **options: Any) -> dg.JobDefinition:
    ops = list({op.name: op for op, *_ in invocations}.values())
    nodes = {dg.NodeInvocation(op.name, alias=name): given for op, name, given in invocations}
    made = dg.GraphDefinition("graph", node_defs=ops, dependencies=nodes, **options)
    return made.to_job(resource_defs={"io_manager": dg.mem_io_manager}, executor_def=dg.in_process_executor)


def given(parents: list[int]) -> dict[str, Any]:
    made = [dg.DependencyDefinition(f"n{parent}") for parent in parents]
    if len(parents) > 2:
        return {"xs": dg.MultiDependencyDefinition(made)}
    return dict(zip(PARAMETERS[len(parents)], made, strict=True))


@lru_cache
def built(shape: str, nodes: int) -> dg.JobDefinition:
    parents = exchange.graph(shape, nodes)
    return job([(OPS[min(len(p), 3)], f"n{at}", given(p)) for at, p in enumerate(parents)])


def answer(what: str, nodes: int, shape: str = "", size: int = 0) -> dict[str, Any]:
    if what == "hand_over":
        table = exchange.frame(size)

        @dg.op
        def source():
            return table

        hops = [
            (hop, f"n{at}", {"table": dg.DependencyDefinition(f"n{at - 1}")}) for at in range(1, nodes + 1)
        ]
        made, wanted = job([(source, "n0", {}), *hops]), [nodes]
    else:
        made, wanted = built(shape, nodes), exchange.sinks(exchange.graph(shape, nodes))
    with dg.DagsterInstance.ephemeral() as instance:
        seconds, grown, found = exchange.grown(lambda: made.execute_in_process(instance=instance))
        values = [found.output_for_node(f"n{at}") for at in wanted]
    return {
        "seconds": seconds,
        "grown": grown,
        "value": len(values[0]) if size else values,
        "executed": nodes,
    }


exchange.serve(answer)
