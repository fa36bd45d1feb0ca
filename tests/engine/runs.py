"""Runs of dags inside one flow run of Prefect: the real executor without a second for each flow run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import prefect
import pytest

from ml_platform.engine import Dag, EngineSpec, Plan, TaskEvent, watching
from ml_platform.engine.flow_run import execute
from ml_platform.resources.planning import at_work
from ml_platform.store.records import read_run

ENDED = ("done", "cached", "skipped", "failed")


@dataclass
class Ran:
    """What one run did."""

    name: str
    value: Any = None
    error: BaseException | None = None
    events: list[TaskEvent] = field(default_factory=list)

    @property
    def output(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value

    @property
    def states(self) -> dict[str, str]:
        """How each node ended."""
        return {event.node: event.state for event in self.events if event.state in ENDED}

    @property
    def executed(self) -> set[str]:
        """Nodes whose task ran to its end."""
        began = {event.node for event in self.events if event.state == "running"}
        return {node for node, state in self.states.items() if state == "done" and node in began}

    @property
    def messages(self) -> dict[str, str]:
        """The last thing that was said of each node."""
        return {event.node: event.message for event in self.events if event.message}

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """Records of the nodes, as they were written."""
        return {node["node"]: node for node in read_run(self.name)["nodes"]}


class FlowRun:
    """A flow run that stays open, and runs in its own thread what it is handed."""

    def __init__(self) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        context = copy_context()
        self._thread = threading.Thread(target=context.run, args=(prefect.flow(self._serve, name="tests"),))
        self._thread.start()

    def _serve(self) -> None:
        with at_work():  # Prefect's own threads may write a line while a test plans
            while (asked := self._work.get()) is not None:
                future, do = asked
                try:
                    future.set_result(do())
                except BaseException as error:  # noqa: BLE001  (whatever it is belongs to who asked)
                    future.set_exception(error)

    def do(self, work: Callable[[], Any]) -> Any:
        """The result of a call inside the flow run."""
        future: Future[Any] = Future()
        self._work.put((future, work))
        return future.result()

    def close(self) -> None:
        self._work.put(None)
        self._thread.join()


class Runner:
    """Runs dags as `dag(…)` does. Runs of one test are called run-1, run-2, …"""

    def __init__(self, inside: FlowRun, patch: pytest.MonkeyPatch) -> None:
        self._inside = inside
        self._patch = patch
        self._runs = 0

    def __call__(
        self,
        dag: Dag[..., Any],
        *,
        engine: EngineSpec | None = None,
        watch: Callable[[TaskEvent], None] | None = None,
        **parameters: Any,
    ) -> Ran:
        self._runs += 1
        ran = Ran(f"run-{self._runs}")
        self._patch.setenv("PREFECT__RUNTIME__FLOW_RUN__NAME", ran.name)

        def see(event: TaskEvent) -> None:
            ran.events.append(event)
            if watch is not None:
                watch(event)

        def work() -> Any:
            with watching(see):
                return execute(dag, dag.with_defaults(parameters), engine or EngineSpec())

        try:
            ran.value = self._inside.do(work)
        except BaseException as error:  # noqa: BLE001  (the test looks at it)
            ran.error = error
        return ran


def verdicts(plan: Plan) -> dict[str, str]:
    return {node.name: node.verdict for node in plan.nodes}
