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


def variadic(function: Any) -> Any:
    return lambda *given: function(list(given))


BODIES = (exchange.one, exchange.add, exchange.join, variadic(exchange.total))


def pipeline(parents: list[list[int]], bodies: list[Any]) -> Pipeline:
    return Pipeline(
        [
            node(partial(counted, body, at), [f"n{p}" for p in needed] or None, f"n{at}", name=f"n{at}")
            for at, (needed, body) in enumerate(zip(parents, bodies, strict=True))
        ]
    )


def answer(what: str, nodes: int, shape: str = "chains", size: int = 0, **more: Any) -> dict[str, Any]:
    executed.clear()
    options = {}
    if what == "hand_over":
        hops = [node(lambda table: table, f"n{at}", f"n{at + 1}", name=f"n{at}") for at in range(nodes)]
        made = Pipeline(hops)
        catalog = DataCatalog({f"n{at}": MemoryDataset(copy_mode="assign") for at in range(nodes + 1)})
        catalog["n0"] = MemoryDataset(exchange.frame(size), copy_mode="assign")
        wanted = [nodes]
    else:
        parents = exchange.graph(shape, nodes)
        wanted = exchange.sinks(parents)
        names = [f"n{at}" for at in range(nodes)]
        if what == "graph":
            bodies = [BODIES[min(len(p), 3)] for p in parents]
            catalog = DataCatalog({name: MemoryDataset(copy_mode="assign") for name in names})
        else:
            edits = [int(at == more["edited"]) for at in range(exchange.CHAINS)]
            firsts = [partial(exchange.text, at, size, edit) for at, edit in enumerate(edits)]
            bodies = [*firsts, *[exchange.turned] * (nodes - 1 - exchange.CHAINS), variadic(exchange.length)]
            kept = {name: PickleDataset(filepath=str(Path(more["folder"], name))) for name in names}
            catalog, options = DataCatalog(kept), {"only_missing_outputs": True}
        made = pipeline(parents, bodies)

    def value(_: Any) -> Any:
        values = [catalog.load(f"n{at}") for at in wanted]
        return len(values[0]) if what == "hand_over" else values if what == "graph" else values[0]

    return exchange.answered(
        lambda: SequentialRunner().run(made, catalog, **options), value, lambda: len(executed)
    )


exchange.serve(answer)
