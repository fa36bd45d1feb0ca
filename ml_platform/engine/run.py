"""The executor: walks a graph with a ready-queue inside one Prefect flow run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from prefect.runtime import flow_run

from ml_platform.engine.check import preflight
from ml_platform.engine.graph import Graph, Node, fill
from ml_platform.engine.prefect_door import new_run_id, run_node
from ml_platform.errors import GraphError
from ml_platform.resources.leases import Leases, Scope, using
from ml_platform.resources.placement import load_placement
from ml_platform.resources.progress import Progress, listening
from ml_platform.specs.base import Spec
from ml_platform.specs.resources import ResourceSpec
from ml_platform.store.records import RunRecord

if TYPE_CHECKING:
    from ml_platform.engine.dag import Dag


class TaskEvent(Spec):
    """Something that whoever watches a run wants to see."""

    run: str
    node: str
    state: Literal["waiting", "running", "done", "failed", "skipped"]
    seconds: float = 0.0
    message: str = ""
    done: float | None = None
    total: float | None = None


Watcher = Callable[[TaskEvent], None]
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watch: Watcher) -> Iterator[None]:
    """See the events of runs that start inside."""
    token = _watcher.set(watch)
    try:
        yield
    finally:
        _watcher.reset(token)


def execute(dag: Dag[..., Any], parameters: dict[str, Any]) -> Any:
    """Declare, check and run a dag inside the present flow run. Returns what its function promised."""
    graph = dag.graph(**parameters)
    scope = Scope(
        name=dag.name,
        run=flow_run.name or "run",
        placement=load_placement(),
        tags={"prefect.flow_run_id": str(flow_run.id), "prefect.flow_run_url": str(flow_run.ui_url or "")},
    )
    leases, record = Leases(scope), RunRecord(scope.folder)
    execution = Execution(graph, leases, record, _watcher.get() or _log_event)
    facts = {"run": scope.run, "dag": dag.name, "flow_run_id": str(flow_run.id), "parameters": parameters}
    ended: BaseException | None = None
    try:
        preflight(graph, leases)
        return fill(graph.output, execution.run())
    except BaseException as error:
        ended = error
        raise
    finally:
        try:
            leases.close(ended)
        finally:
            state = "completed" if ended is None else f"failed: {type(ended).__name__}"
            record.finish(**facts, state=state, placement=scope.placement, budget=str(leases.budget))


class Execution:
    """One walk over a graph. Nodes run as soon as their inputs are there and the budget admits them."""

    def __init__(self, graph: Graph, leases: Leases, record: RunRecord, watch: Watcher) -> None:
        self.graph = graph
        self.leases = leases
        self.record = record
        self.watch = watch
        self.results: dict[str, Any] = {}
        self._ids = {node.name: new_run_id() for node in graph.nodes}
        self._specs = {node.name: leases.resolve(node.resources) for node in graph.nodes}
        self._waiting = list(graph.nodes)
        self._running: dict[Future[Any], Node] = {}

    def run(self) -> Mapping[str, Any]:
        """Run every node. The first failure ends the run: what still runs is cancelled."""
        self._start_ahead()
        for node in self._waiting:
            self._tell(node, "waiting")
        with ThreadPoolExecutor(
            max_workers=max(1, min(32, len(self._waiting))), thread_name_prefix="node"
        ) as pool:
            try:
                while self._waiting or self._running:
                    self._submit_ready(pool)
                    self._collect()
            except BaseException:
                self._stop()
                raise
        return self.results

    def _start_ahead(self) -> None:
        """Open what the plan needs now, side by side: it takes longer than the first tasks do."""
        distinct: dict[str, ResourceSpec] = {
            repr(spec): spec for specs in self._specs.values() for spec in specs.values()
        }
        self.leases.start(distinct.values())

    def _submit_ready(self, pool: ThreadPoolExecutor) -> None:
        ready = [node for node in self._waiting if all(parent in self.results for parent in node.parents)]
        for node in ready:
            if self.leases.budget.try_admit(self._needs(node)):
                self._waiting.remove(node)
                self._running[pool.submit(copy_context().run, self._run_node, node)] = node
        if not self._running:
            raise GraphError(
                f"no task of {self.graph.name} can start", got=", ".join(n.name for n in self._waiting)
            )

    def _collect(self) -> None:
        ended, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in ended:
            node = self._running.pop(future)
            self.leases.budget.release(self._needs(node))
            self.results[node.name] = future.result()
        coming = [*self._waiting, *self._running.values()]
        self.leases.close_unused(spec for node in coming for spec in self._specs[node.name].values())

    def _stop(self) -> None:
        self.leases.cancel()
        for node in self._waiting:
            self._tell(node, "skipped")

    def _needs(self, node: Node) -> list[Any]:
        return self.leases.needs(self._specs[node.name].values())

    def _run_node(self, node: Node) -> Any:
        began, started = time.monotonic(), datetime.now(UTC).isoformat()
        facts = {"task": node.function, "started": started, "resources": self._specs[node.name]}

        def hear(progress: Progress) -> None:
            self._tell(node, "running", time.monotonic() - began, **progress.model_dump())

        self._tell(node, "running")
        try:
            with using(self.leases, admitted=True), listening(hear):
                value = run_node(
                    node.task,
                    {**fill(dict(node.arguments), self.results), **self._specs[node.name]},
                    name=node.name,
                    run_id=self._ids[node.name],
                    parents={p: tuple(self._ids[r.node] for r in refs) for p, refs in node.inputs.items()},
                )
        except BaseException as error:
            seconds = time.monotonic() - began
            self.record.node(
                node.name, **facts, state="failed", seconds=seconds, error=f"{type(error).__name__}: {error}"
            )
            self._tell(
                node,
                "failed",
                seconds,
                message=str(error).splitlines()[0] if str(error) else type(error).__name__,
            )
            raise
        seconds = time.monotonic() - began
        self.record.node(node.name, **facts, state="completed", seconds=seconds, output=value)
        self._tell(node, "done", seconds)
        return value

    def _tell(self, node: Node, state: Any, seconds: float = 0.0, **more: Any) -> None:
        self.watch(TaskEvent(run=self.leases.scope.run, node=node.name, state=state, seconds=seconds, **more))


def _log_event(event: TaskEvent) -> None:
    """Without a terminal, a deployed run say, events are lines of the flow run's log."""
    from prefect.logging import get_run_logger

    if event.state in ("running", "failed") and event.message:
        get_run_logger().info("%s %s", event.node, event.message)
