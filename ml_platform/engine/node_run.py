"""One node from its start to its stored result, in a thread of its own."""

from __future__ import annotations

import importlib.metadata
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from ml_platform.engine.accounts import Accounts
from ml_platform.engine.decide import Decision, World, decide, own_digest
from ml_platform.engine.graph import Node, fill
from ml_platform.engine.keys import NoIdentityError, task_code
from ml_platform.engine.outputs import Output, Values, to_json
from ml_platform.engine.prefect_door import call_node, new_run_id, run_node
from ml_platform.engine.task import machine_failed
from ml_platform.errors import InfrastructureError, PlatformError, StoreError, one_line
from ml_platform.resources.leases import Leases, using
from ml_platform.resources.planning import at_work
from ml_platform.resources.progress import Progress, listening, report
from ml_platform.store import crash
from ml_platform.store.flights import flight
from ml_platform.store.results import Absent, Result
from ml_platform.store.stamps import locations, stamp


class NodeRuns:
    """Runs nodes, each in the thread that calls.

    Args:
        dag: Name under which results are kept.
        outputs: What nodes before gave.

    Attributes:
        threads: In which thread each node is under way.
    """

    def __init__(
        self, dag: str, world: World, leases: Leases, accounts: Accounts, outputs: Mapping[str, Output]
    ) -> None:
        self.threads: dict[str, int] = {}
        self._dag = dag
        self._world = world
        self._leases = leases
        self._accounts = accounts
        self._outputs = outputs

    def run(self, node: Node, decision: Decision) -> Output:
        """Run a node, or find what another run has stored meanwhile; say and record what became of it."""
        with at_work():
            return self._watched(node, decision)

    def _watched(self, node: Node, decision: Decision) -> Output:
        accounts = self._accounts
        self.threads[node.name] = threading.get_ident()
        began = time.monotonic()
        accounts.ids[node.name] = accounts.ids_above(node) if node.task.light else (new_run_id(),)
        accounts.tell(node.name, "running", message="")
        try:
            with crash.at(node.name):
                crash.point("starts")
                output, decision, state = self._run_or_find(node, decision)
        except BaseException as error:
            seconds = time.monotonic() - began
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            # A disk that is full must not hide why the task failed.
            with suppress(StoreError):
                accounts.record(node, decision, "failed", seconds, error=f"{type(error).__name__}: {error}")
            accounts.tell(node.name, "failed", seconds, message=said)
            accounts.states[node.name] = "failed"
            raise
        finally:
            self.threads.pop(node.name, None)
        seconds = time.monotonic() - began
        accounts.record(node, decision, state, seconds, output=output.value, identity=output.known_identity)
        with crash.at(node.name):
            crash.point("ended")
        accounts.tell(node.name, "done" if state == "completed" else "cached", seconds)
        accounts.states[node.name] = "done" if state == "completed" else "cached"
        return output

    def _run_or_find(self, node: Node, decision: Decision) -> tuple[Output, Decision, str]:
        """Run it, unless somebody else is at it: then wait, and take the result."""
        if not (decision.own and decision.inputs) or decision.uncacheable or not node.task.cache:
            return self._executed(node, decision), decision, "completed"

        def say() -> None:
            waiting = "the same work is under way already; waiting for its result"
            self._accounts.tell(node.name, "running", message=waiting)

        with flight(decision.own, decision.inputs, on_wait=say):
            again = self._found_meanwhile(node, decision)
            if again is not None:
                self._accounts.ids[node.name] = self._accounts.show(node, "Cached", again.reason)
                return Output(result=again.result, type_=node.task.output_type), again, "cached"
            return self._executed(node, decision), decision, "completed"

    def _found_meanwhile(self, node: Node, decision: Decision) -> Decision | None:
        """What another run has stored since this node was decided."""
        if node.declared in self._world.forced:
            return None
        if isinstance(self._world.results.find(decision.own, decision.inputs), Absent):
            return None
        again = decide(node, self._outputs, self._world.fresh())
        return again if again.result is not None else None

    def _executed(self, node: Node, decision: Decision) -> Output:
        began = time.monotonic()

        def hear(progress: Progress) -> None:
            seconds = time.monotonic() - began
            self._accounts.tell(node.name, "running", seconds, **progress.model_dump())

        arguments = {**fill(dict(node.arguments), Values(self._outputs)), **self._accounts.specs(node)}
        with using(self._leases, admitted=True), listening(hear):
            if node.task.light:
                value = self._called(node, arguments)
            else:
                run_id, parents = self._accounts.ids[node.name][0], self._accounts.parents(node)
                value = run_node(node.task, arguments, name=node.name, run_id=run_id, parents=parents)
        output = Output(value)
        crash.point("ran")
        self._store(node, decision, output, time.monotonic() - began)
        return output

    def _called(self, node: Node, arguments: dict[str, Any]) -> Any:
        """Call a light node; once more after a failure of the infrastructure, as Prefect does for others."""
        try:
            return call_node(node.task, arguments, name=node.name)
        except InfrastructureError as error:
            if not machine_failed(error):
                raise
            report(f"tried again: {one_line(error)}")
            return call_node(node.task, arguments, name=node.name)

    def _store(self, node: Node, decision: Decision, output: Output, seconds: float) -> None:
        """Keep the result for later runs. A run goes on without: it only cannot be reused."""
        if (
            not (decision.own and decision.inputs)
            or decision.uncacheable
            or "" in decision.input_parts.values()
        ):
            return
        task = node.task
        try:
            if (task.probe or task.reads) and own_digest(node, self._outputs, self._world) != decision.own:
                raise NoIdentityError("what it reads was changed while it ran")
            content = to_json(output, task.output_type)
            result = Result(
                own=decision.own,
                inputs=decision.inputs,
                dag=self._dag,
                node=node.name,
                task=node.function,
                run=self._leases.scope.run,
                output=content,
                identity=output.identity() or "",
                stamps={uri: stamp(uri) or "" for uri in locations(output.value)},
                parts=decision.parts,
                code=self._world.keep_code(task_code(node.task.function)),
                seconds=seconds,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                writers=_WRITERS,
            )
            self._world.results.put(result)
        except (NoIdentityError, PlatformError) as error:
            why = f"its result is not kept: {str(error).splitlines()[0]}"
            self._accounts.tell(node.name, "running", message=why)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from source"


_WRITERS = {"ml-platform": _version("ml-platform")}
