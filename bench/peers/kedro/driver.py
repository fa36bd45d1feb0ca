"""Kedro, as its documentation says: "Nodes and pipelines", the SequentialRunner, and MemoryDatasets with
`copy_mode="assign"`, which hands values over without a copy. An unchanged re-run: pickled intermediate
datasets and `only_missing_outputs` ("Run a pipeline")."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import exchange
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner
from kedro_datasets.pickle import PickleDataset

logging.disable(logging.INFO)
executed: list[int] = []


def counted(function: Any, at: int, *given: Any) -> Any:
    executed.append(at)
    return function(*given)


def variadic_total(*xs: int) -> int:
    return sum(xs)


def variadic_length(*texts: str) -> int:
    return exchange.length(list(texts))


def pipeline(parents: list[list[int]], bodies: list[Any]) -> Pipeline:
    return Pipeline(
        [
            node(partial(counted, body, at), [f"n{p}" for p in needed] or None, f"n{at}", name=f"n{at}")
            for at, (needed, body) in enumerate(zip(parents, bodies, strict=True))
        ]
    )


def in_memory(names: list[str]) -> DataCatalog:
    return DataCatalog({name: MemoryDataset(copy_mode="assign") for name in names})


def answer(what: str, nodes: int, shape: str = "chains", size: int = 0, **more: Any) -> dict[str, Any]:
    executed.clear()
    options = {}
    if what == "hand_over":
        made = Pipeline(
            [node(lambda table: table, f"n{at}", f"n{at + 1}", name=f"n{at}") for at in range(nodes)]
        )
        catalog = in_memory([f"n{at}" for at in range(nodes + 1)])
        catalog["n0"] = MemoryDataset(exchange.frame(size), copy_mode="assign")
        wanted = [nodes]
    else:
        parents = exchange.graph(shape, nodes)
        wanted = exchange.sinks(parents)
        names = [f"n{at}" for at in range(nodes)]
        if what == "graph":
            bodies = [
                (exchange.one, exchange.add, exchange.join, variadic_total)[min(len(p), 3)] for p in parents
            ]
            catalog = in_memory(names)
        else:
            firsts = [
                partial(exchange.text, at, size, int(at == more["edited"])) for at in range(exchange.CHAINS)
            ]
            bodies = [*firsts, *[exchange.turned] * (nodes - 1 - exchange.CHAINS), variadic_length]
            kept = {name: PickleDataset(filepath=str(Path(more["folder"], name))) for name in names}
            catalog, options = DataCatalog(kept), {"only_missing_outputs": True}
        made = pipeline(parents, bodies)
    seconds, grown, _ = exchange.grown(lambda: SequentialRunner().run(made, catalog, **options))
    values = [catalog.load(f"n{at}") for at in wanted]
    value = values if what == "graph" else values[0]
    value = len(value) if what == "hand_over" else value
    return {"seconds": seconds, "grown": grown, "value": value, "executed": len(executed)}


exchange.serve(answer)
