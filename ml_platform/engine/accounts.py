"""What became of each node: told to whoever watches a run, to Prefect, and to the run record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ml_platform.engine.decide import Decision, World
from ml_platform.engine.events import TaskEvent, Watcher
from ml_platform.engine.graph import Node
from ml_platform.engine.keys import task_code
from ml_platform.engine.prefect_door import new_run_id, record_crash, record_node
from ml_platform.resources.leases import Leases
from ml_platform.specs.resources import ResourceSpec
from ml_platform.store.history import NodeHistory
from ml_platform.store.records import RunRecord


class Accounts:
    """Kept by the thread of the executor and by those of the nodes, each of its own nodes.

    Attributes:
        states: How each node ended.
        ids: Task runs of Prefect's that stand for a node.
        history: What the next plan may want to know of it.
    """

    def __init__(self, world: World, leases: Leases, record: RunRecord, watch: Watcher) -> None:
        self.states: dict[str, str] = {}
        self.ids: dict[str, tuple[UUID, ...]] = {}
        self.history: dict[str, NodeHistory] = {}
        self._world = world
        self._leases = leases
        self._record = record
        self._watch = watch

    def tell(self, name: str, state: Any, seconds: float = 0.0, **more: Any) -> None:
        """Say to whoever watches the run how a node stands."""
        self._watch(TaskEvent(run=self._leases.scope.run, node=name, state=state, seconds=seconds, **more))

    def record(self, node: Node, decision: Decision | None, state: str, seconds: float, **more: Any) -> None:
        """Write its line of the run record, and what the next plan may want to know of it."""
        facts: dict[str, Any] = {"state": state, "task": node.function, "seconds": seconds, **more}
        facts["ended"] = datetime.now(UTC).isoformat()
        facts["resources"] = self.specs(node)
        if decision is not None:
            code = self._world.keep_code(task_code(node.task.function)) if decision.own else ""
            facts |= {"reason": decision.reason, "own": decision.own, "inputs": decision.inputs, "code": code}
            facts |= {"parts": decision.parts, "input_parts": decision.input_parts}
            if state in ("completed", "cached") and decision.own:
                self.history[node.name] = NodeHistory(
                    run=self._leases.scope.run,
                    own=decision.parts,
                    inputs=decision.input_parts,
                    code=code,
                    seconds=(seconds,) if state == "completed" else (),
                )
        self._record.node(node.name, **facts)

    def skipped(self, node: Node, reason: str) -> None:
        """It will not run."""
        self._record.node(node.name, state="skipped", reason=reason, task=node.function)
        self.tell(node.name, "skipped", message=reason)

    def show(self, node: Node, state: str, message: str) -> tuple[UUID, ...]:
        """Have a task run in Prefect for a node that has none of its own."""
        if node.task.light:
            return self.ids_above(node)
        run_id = new_run_id()
        record_node(
            node.task,
            name=node.name,
            run_id=run_id,
            parents=self.parents(node),
            state=state,
            message=message,
        )
        return (run_id,)

    def show_crash(self, node: Node, message: str) -> None:
        """Say to Prefect that its task run is over."""
        for run_id in () if node.task.light else self.ids.get(node.name, ()):
            record_crash(
                node.task, name=node.name, run_id=run_id, parents=self.parents(node), message=message
            )

    def parents(self, node: Node) -> dict[str, tuple[UUID, ...]]:
        """Task runs behind each parameter."""
        return {
            parameter: tuple(run_id for r in references for run_id in self.ids.get(r.node, ()))
            for parameter, references in node.inputs.items()
        }

    def ids_above(self, node: Node) -> tuple[UUID, ...]:
        """What stands for a light node in the UI: the task runs that it needs."""
        ids = (run_id for runs in self.parents(node).values() for run_id in runs)
        return tuple(dict.fromkeys(ids))

    def specs(self, node: Node) -> dict[str, ResourceSpec]:
        """Its recipes, as this placement has them."""
        return self._leases.resolve(node.resources) if node.resources else {}
