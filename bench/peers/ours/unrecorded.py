"""A run without Prefect: it fills the store for plans, which need no server either."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from ml_platform import Dag, EngineSpec
from ml_platform.engine import node_run
from ml_platform.engine.flow_run import _world
from ml_platform.engine.plan import make_plan
from ml_platform.engine.run import Execution
from ml_platform.resources.leases import Leases, Scope
from ml_platform.resources.placement import load_placement
from ml_platform.store.history import add_to_history
from ml_platform.store.records import RunRecord


def run_unrecorded(dag: Dag[..., Any], **parameters: Any) -> None:
    """Run the real executor on the real plan; only the task runs are plain calls."""
    graph = dag.graph(**parameters)
    leases = Leases(Scope(name=dag.name, run="unrecorded", placement=load_placement()))
    world = _world(graph, leases, EngineSpec())
    planned = make_plan(graph, world, leases)
    record = RunRecord(leases.scope.folder)
    record.begin(plan=planned.plan)
    execution = Execution(graph, planned, world, leases, record, lambda event: None, EngineSpec())
    with patch.object(node_run, "run_node", lambda task, arguments, **_: task.function(**arguments)):
        execution.run()
    record.finish(plan=planned.plan)
    add_to_history(graph.name, execution.accounts.history)
