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
def hop(table):
    return table


OPS = [dg.op(body) for body in (exchange.one, exchange.add, exchange.join, exchange.total)]


def job(invocations: list[tuple[Any, str, dict[str, Any]]]) -> dg.JobDefinition:
    ops = list({op.name: op for op, *_ in invocations}.values())
    nodes = {dg.NodeInvocation(op.name, alias=name): given for op, name, given in invocations}
    made = dg.GraphDefinition("graph", node_defs=ops, dependencies=nodes)
    return made.to_job(resource_defs={"io_manager": dg.mem_io_manager}, executor_def=dg.in_process_executor)


def given(parents: list[int]) -> dict[str, Any]:
    made = [dg.DependencyDefinition(f"n{parent}") for parent in parents]
    many = {"xs": dg.MultiDependencyDefinition(made)}
    return many if len(made) > 2 else dict(zip("xy", made, strict=False))


@lru_cache
def built(shape: str, nodes: int) -> dg.JobDefinition:
    parents = exchange.graph(shape, nodes)
    return job([(OPS[min(len(p), 3)], f"n{at}", given(p)) for at, p in enumerate(parents)])


def hand_over(nodes: int, table: Any) -> dg.JobDefinition:
    @dg.op
    def source():
        return table

    parents = [{"table": dg.DependencyDefinition(f"n{at - 1}")} for at in range(1, nodes + 1)]
    return job([(source, "n0", {}), *((hop, f"n{at}", p) for at, p in enumerate(parents, start=1))])


def answer(what: str, nodes: int, shape: str = "chain", size: int = 0) -> dict[str, Any]:
    made = hand_over(nodes, exchange.frame(size)) if what == "hand_over" else built(shape, nodes)
    wanted = [nodes] if what == "hand_over" else exchange.sinks(exchange.graph(shape, nodes))

    def value(found: Any) -> Any:
        values = [found.output_for_node(f"n{at}") for at in wanted]
        return len(values[0]) if what == "hand_over" else values

    with dg.DagsterInstance.ephemeral() as instance:
        return exchange.answered(lambda: made.execute_in_process(instance=instance), value, lambda: nodes)


exchange.serve(answer)
