"""The executor: walks the plan with a ready-queue inside one Prefect flow run."""

from __future__ import annotations

import ctypes
import importlib.metadata
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Any
from uuid import UUID

from ml_platform.engine.decide import Decision, World, decide, own_digest
from ml_platform.engine.events import TaskEvent, Watcher
from ml_platform.engine.graph import SKIPPED, Graph, Node, fill
from ml_platform.engine.keys import NoIdentityError, task_code
from ml_platform.engine.outputs import ListOutput, Output, Values, to_json
from ml_platform.engine.plan import EngineSpec, Planned
from ml_platform.engine.prefect_door import call_node, new_run_id, record_crash, record_node, run_node
from ml_platform.engine.threads import NodeThreads
from ml_platform.errors import GraphError, PlatformError, StoreError
from ml_platform.resources.leases import Leases, using
from ml_platform.resources.planning import at_work
from ml_platform.resources.progress import Progress, listening
from ml_platform.specs.resources import ResourceSpec
from ml_platform.store import crash
from ml_platform.store.flights import flight
from ml_platform.store.history import NodeHistory
from ml_platform.store.records import RunRecord
from ml_platform.store.results import Absent, Result
from ml_platform.store.stamps import locations, stamp

MAX_THREADS = 32
FIRST_THREADS = 1
PATIENCE_S = 0.01
"""Threads share one interpreter, also with the one that sends events: for small tasks one is as fast as any,
and leaves nothing to send for the end. There are twice as many each time that nothing ended for so long."""
SHOWN_CACHED_NODES = 100
"""Cached nodes are task runs in the UI up to this many; above, the plan's artifact alone shows them."""
GRACE_S = 2.0
STOP_S = 10.0
"""After a stop, tasks get this long to fail by themselves, and then to unwind."""


class Interrupted(BaseException):
    """Raised inside the threads of tasks when a run is stopped."""


class Execution:
    """One walk over a graph. Nodes run as soon as their inputs are there and the budget admits them."""

    def __init__(
        self,
        graph: Graph,
        planned: Planned,
        world: World,
        leases: Leases,
        record: RunRecord,
        watch: Watcher,
        engine: EngineSpec,
    ) -> None:
        self.graph = graph
        self.plan = planned.plan
        self.world = world.fresh()
        self.leases = leases
        self.record = record
        self.watch = watch
        self.engine = engine
        self.outputs: dict[str, Output] = {}
        self.history: dict[str, NodeHistory] = {}
        self.states: dict[str, str] = {}
        self._decided = {decision.name: decision for decision in planned.plan.nodes if decision.result}
        self._known = planned.outputs
        self._show_cached = planned.plan.count("cached") <= SHOWN_CACHED_NODES
        self._ids: dict[str, tuple[UUID, ...]] = {}
        self._missing = {node.name: len(node.parents) for node in graph.nodes}
        self._children: dict[str, list[Node]] = {}
        self._members: dict[str, list[str]] = {}
        self._left: dict[str, int] = {}
        self._owner: dict[str, Node] = {}
        self._ready: deque[Node] = deque(node for node in graph.nodes if not node.parents)
        self._admitted: deque[tuple[Node, Decision]] = deque()
        self._running: dict[Future[Output], Node] = {}
        self._ended: SimpleQueue[Future[Output]] = SimpleQueue()
        self._threads: dict[str, int] = {}
        self._width = FIRST_THREADS
        self._failure: BaseException | None = None
        self._uses = {
            node.name: {repr(spec): spec for spec in self._specs(node).values()}
            for node in graph.nodes
            if node.resources
        }
        self._users = Counter(key for specs in self._uses.values() for key in specs)
        for node in graph.nodes:
            for parent in node.parents:
                self._children.setdefault(parent, []).append(node)

    def run(self) -> Mapping[str, Any]:
        """Run every node. Returns the values by node.

        Raises:
            BaseException: The first failure; what still ran was cancelled, or finished, as asked for.
        """
        self._start_ahead()
        for node in self.graph.nodes:
            self._tell(node.name, "waiting")
        pool = NodeThreads(MAX_THREADS)
        try:
            while self._ready or self._admitted or self._running:
                self._advance()
                self._submit(pool)
                self._collect()
            if self._failure is not None:
                raise self._failure
        except BaseException:
            self._stop()
            raise
        finally:
            pool.close(wait=not self._running)
        return Values(self.outputs)

    # ── From ready to ended ──────────────────────────────────────────────────────────────────────

    def _start_ahead(self) -> None:
        """Open what surely runs needs, side by side: it takes longer than the first tasks do."""
        surely = {decision.name for decision in self.plan.nodes if decision.verdict == "run"}
        needed = [node for node in self.graph.nodes if node.name in surely]
        distinct = {repr(spec): spec for node in needed for spec in self._specs(node).values()}
        self.leases.start(distinct.values())

    def _advance(self) -> None:
        """Decide what became ready. What is cached or skipped ends at once, and may make more ready."""
        while self._ready:
            node = self._ready.popleft()
            if node.over is not None:
                self._expand(node)
                continue
            try:
                decision = self._decided.get(node.name) or decide(node, self.outputs, self.world)
            except PlatformError as error:
                self._fail(node, error, 0.0, None)
                continue
            if decision.verdict == "cached":
                self._reuse(node, decision)
            elif decision.verdict == "skipped":
                self._skip(node, decision.reason)
            else:
                self._admitted.append((node, decision))

    def _expand(self, node: Node) -> None:
        """Turn a mapped node into one for each item, now that the list is known."""
        if any(not condition.holds(Values(self.outputs)) for condition in node.conditions):
            self._skip(node, "its branch was not taken")
            return
        items = node.arguments[node.over or ""].resolve(Values(self.outputs)) or ()
        members = node.expanded(len(items))
        self._members[node.name] = [member.name for member in members]
        self._left[node.name] = len(members)
        if not members:
            self._tell(node.name, "skipped", message="its list is empty")
            self._complete(node, Output([]), (), "skipped")
        for member in members:
            self._owner[member.name] = node
            self._ready.append(member)

    def _submit(self, pool: NodeThreads) -> None:
        stopping = self._failure is not None and self.engine.on_failure == "stop"
        for _ in range(len(self._admitted)):
            if len(self._running) >= self._width and not stopping:
                break
            node, decision = self._admitted.popleft()
            if stopping:
                self._skip(node, "another task failed")
            elif self.leases.budget.try_admit(self._needs(node)):
                future = self._start(pool, node, decision, alone=not self._admitted and not self._running)
                self._running[future] = node
                future.add_done_callback(self._ended.put)
            else:
                self._admitted.append((node, decision))
        if self._admitted and not self._running:
            names = ", ".join(node.name for node, _ in self._admitted)
            raise GraphError(f"no task of {self.graph.name} can start", got=names)

    def _start(self, pool: NodeThreads, node: Node, decision: Decision, *, alone: bool) -> Future[Output]:
        """Run a node in a thread; a small one with nothing beside it, here: a thread costs as much."""
        if not alone or node.resources or node.task.isasync or node.task.timeout_seconds:
            return pool.submit(copy_context().run, self._run_node, node, decision)
        future: Future[Output] = Future()
        try:
            future.set_result(copy_context().run(self._run_node, node, decision))
        except Exception as error:  # noqa: BLE001  (as a thread would keep it)
            future.set_exception(error)
        return future

    def _collect(self) -> None:
        while self._running:
            try:
                may_grow = self._admitted and self._width < MAX_THREADS
                future = self._ended.get(timeout=PATIENCE_S if may_grow else None)
            except Empty:
                self._width *= 2
                return
            node = self._running.pop(future)
            self.leases.budget.release(self._needs(node))
            error = future.exception()
            if error is None:
                self._complete(node, future.result(), self._ids[node.name])
            elif isinstance(error, Exception) and self.engine.on_failure == "finish":
                self._failure = self._failure or error
                self._give_up_after(node)
            else:
                raise error
            if self._ready or self._ended.empty():
                return

    def _let_go(self, node: Node) -> None:
        """A node ended: close what no coming one uses."""
        uses = self._uses.pop(node.name, {})
        self._users.subtract(list(uses))
        if any(not self._users[key] for key in uses):
            self.leases.close_unused(spec for specs in self._uses.values() for spec in specs.values())

    def _complete(self, node: Node, output: Output, ids: tuple[UUID, ...], state: str = "done") -> None:
        self.outputs[node.name] = output
        self._ids[node.name] = ids
        self.states.setdefault(node.name, state)
        self._let_go(node)
        for child in self._children.get(node.name, ()):
            self._missing[child.name] -= 1
            if not self._missing[child.name]:
                self._ready.append(child)
        self._item_ended(node)

    def _item_ended(self, item: Node) -> None:
        """A mapped node ends with the last of its items: until then they use its resources."""
        owner = self._owner.get(item.name)
        if owner is None:
            return
        self._left[owner.name] -= 1
        if self._left[owner.name]:
            return
        if owner.name in self.states:
            self._let_go(owner)
            return
        names = self._members[owner.name]
        ids = tuple(run_id for name in names for run_id in self._ids[name])
        state = "cached" if all(self.states[name] == "cached" for name in names) else "done"
        self._tell(owner.name, state)
        self._complete(owner, ListOutput([self.outputs[name] for name in names]), ids, state)

    def _reuse(self, node: Node, decision: Decision) -> None:
        output = self._known.get(node.name) or Output(result=decision.result, type_=node.task.output_type)
        ids = self._show(node, "Cached", decision.reason) if self._show_cached else ()
        stored = decision.result.output if decision.result else None
        self._record(node, decision, "cached", 0.0, output=stored, identity=output.known_identity)
        self._tell(node.name, "cached", message=decision.reason)
        self._complete(node, output, ids, "cached")

    def _skip(self, node: Node, reason: str) -> None:
        self.record.node(node.name, state="skipped", reason=reason, task=node.function)
        self._tell(node.name, "skipped", message=reason)
        self._complete(node, Output(SKIPPED), self._show(node, "Skipped", reason), "skipped")

    def _show(self, node: Node, state: str, message: str) -> tuple[UUID, ...]:
        if node.task.light:
            return self._ids_above(node)
        run_id = new_run_id()
        record_node(
            node.task,
            name=node.name,
            run_id=run_id,
            parents=self._parents(node),
            state=state,
            message=message,
        )
        return (run_id,)

    def _fail(self, node: Node, error: PlatformError, seconds: float, decision: Decision | None) -> None:
        """A node failed before it could start: its probe did, or the store."""
        self._record(node, decision, "failed", seconds, error=f"{type(error).__name__}: {error}")
        self._tell(node.name, "failed", seconds, message=error.what)
        if self.engine.on_failure == "stop":
            raise error
        self._failure = self._failure or error
        self._give_up_after(node)

    def _give_up_after(self, failed: Node) -> None:
        """Nothing that needs a failed node runs; the rest goes on, other items of its list too."""
        self.states[failed.name] = "failed"
        owner = self._owner.get(failed.name)
        if owner is None:
            self._let_go(failed)
        elif owner.name not in self.states:
            self.states[owner.name] = "failed"
            self._tell(owner.name, "failed", message=f"{failed.name} failed")
        self._item_ended(failed)
        reason = f"{failed.declared} failed"
        after = self.graph.downstream(failed.declared)
        for node in self.graph.nodes:
            if node.name in after and node.name not in self.states:
                self.states[node.name] = "skipped"
                self._let_go(node)
                self.record.node(node.name, state="skipped", reason=reason, task=node.function)
                self._tell(node.name, "skipped", message=reason)

    def _stop(self) -> None:
        """End what still runs: resources first, then the threads themselves, all within 20 s."""
        try:
            self.leases.cancel()
        finally:
            self._end_threads()

    def _end_threads(self) -> None:
        self._running = {future: node for future, node in self._running.items() if not future.cancel()}
        _, late = wait(self._running, timeout=GRACE_S)
        for future in late:
            thread = self._threads.get(self._running[future].name)
            if thread is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(Interrupted)
                )
        _, stuck = wait(late, timeout=STOP_S)
        self._running = {future: self._running[future] for future in stuck}
        for node in self._running.values():
            self._abandon(node)
        for node in self.graph.nodes:
            if node.name not in self.states:
                self._tell(node.name, "skipped")

    def _abandon(self, node: Node) -> None:
        """Nothing ends a call into C that waits: its thread ends with the process, its task run is over."""
        reason = "it could not be interrupted; its thread ends with the process"
        self.states[node.name] = "failed"
        for run_id in () if node.task.light else self._ids.get(node.name, ()):
            record_crash(
                node.task, name=node.name, run_id=run_id, parents=self._parents(node), message=reason
            )
        with suppress(StoreError):
            self._record(node, None, "failed", 0.0, error=reason)
        self._tell(node.name, "failed", message=reason)

    # ── One node, in a thread of its own ─────────────────────────────────────────────────────────

    def _run_node(self, node: Node, decision: Decision) -> Output:
        with at_work():
            return self._watched(node, decision)

    def _watched(self, node: Node, decision: Decision) -> Output:
        """Run a node, and say and record what became of it."""
        self._threads[node.name] = threading.get_ident()
        began = time.monotonic()
        self._ids[node.name] = self._ids_above(node) if node.task.light else (new_run_id(),)
        self._tell(node.name, "running", message="")
        try:
            with crash.at(node.name):
                crash.point("starts")
                output, decision, state = self._run_or_find(node, decision)
        except BaseException as error:
            seconds = time.monotonic() - began
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            # A disk that is full must not hide why the task failed.
            with suppress(StoreError):
                self._record(node, decision, "failed", seconds, error=f"{type(error).__name__}: {error}")
            self._tell(node.name, "failed", seconds, message=said)
            self.states[node.name] = "failed"
            raise
        finally:
            self._threads.pop(node.name, None)
        seconds = time.monotonic() - began
        self._record(node, decision, state, seconds, output=output.value, identity=output.known_identity)
        with crash.at(node.name):
            crash.point("ended")
        self._tell(node.name, "done" if state == "completed" else "cached", seconds)
        self.states[node.name] = "done" if state == "completed" else "cached"
        return output

    def _run_or_find(self, node: Node, decision: Decision) -> tuple[Output, Decision, str]:
        """Run it, unless somebody else is at it: then wait, and take the result."""
        if not (decision.own and decision.inputs) or decision.uncacheable or not node.task.cache:
            return self._executed(node, decision), decision, "completed"

        def say() -> None:
            self._tell(node.name, "running", message="another run does the same; waiting for its result")

        with flight(decision.own, decision.inputs, on_wait=say):
            again = self._found_meanwhile(node, decision)
            if again is not None:
                self._ids[node.name] = self._show(node, "Cached", again.reason)
                return Output(result=again.result, type_=node.task.output_type), again, "cached"
            return self._executed(node, decision), decision, "completed"

    def _found_meanwhile(self, node: Node, decision: Decision) -> Decision | None:
        """What another run has stored since this node was decided."""
        if node.declared in self.world.forced:
            return None
        if isinstance(self.world.results.find(decision.own, decision.inputs), Absent):
            return None
        again = decide(node, self.outputs, self.world.fresh())
        return again if again.result is not None else None

    def _executed(self, node: Node, decision: Decision) -> Output:
        began = time.monotonic()

        def hear(progress: Progress) -> None:
            self._tell(node.name, "running", time.monotonic() - began, **progress.model_dump())

        specs = self._specs(node)
        arguments = {**fill(dict(node.arguments), Values(self.outputs)), **specs}
        with using(self.leases, admitted=True), listening(hear):
            if node.task.light:
                value = call_node(node.task, arguments, name=node.name)
            else:
                run_id, parents = self._ids[node.name][0], self._parents(node)
                value = run_node(node.task, arguments, name=node.name, run_id=run_id, parents=parents)
        output = Output(value)
        crash.point("ran")
        self._store(node, decision, output, time.monotonic() - began)
        return output

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
            if (task.probe or task.reads) and own_digest(node, self.outputs, self.world) != decision.own:
                raise NoIdentityError("what it reads was changed while it ran")
            content = to_json(output, task.output_type)
            result = Result(
                own=decision.own,
                inputs=decision.inputs,
                dag=self.graph.name,
                node=node.name,
                task=node.function,
                run=self.leases.scope.run,
                output=content,
                identity=output.identity() or "",
                stamps={uri: stamp(uri) or "" for uri in locations(output.value)},
                parts=decision.parts,
                code=self.world.keep_code(task_code(node.task.function)),
                seconds=seconds,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                writers=_WRITERS,
            )
            self.world.results.put(result)
        except (NoIdentityError, PlatformError) as error:
            self._tell(node.name, "running", message=f"its result is not kept: {str(error).splitlines()[0]}")

    # ── Small things ─────────────────────────────────────────────────────────────────────────────

    def _record(self, node: Node, decision: Decision | None, state: str, seconds: float, **more: Any) -> None:
        facts: dict[str, Any] = {"state": state, "task": node.function, "seconds": seconds, **more}
        facts["ended"] = datetime.now(UTC).isoformat()
        facts["resources"] = self._specs(node)
        if decision is not None:
            code = self.world.keep_code(task_code(node.task.function)) if decision.own else ""
            facts |= {"reason": decision.reason, "own": decision.own, "inputs": decision.inputs, "code": code}
            facts |= {"parts": decision.parts, "input_parts": decision.input_parts}
            if state in ("completed", "cached") and decision.own:
                self.history[node.name] = NodeHistory(
                    run=self.leases.scope.run,
                    own=decision.parts,
                    inputs=decision.input_parts,
                    code=code,
                    seconds=(seconds,) if state == "completed" else (),
                )
        self.record.node(node.name, **facts)

    def _parents(self, node: Node) -> dict[str, tuple[UUID, ...]]:
        return {
            parameter: tuple(run_id for r in references for run_id in self._ids.get(r.node, ()))
            for parameter, references in node.inputs.items()
        }

    def _ids_above(self, node: Node) -> tuple[UUID, ...]:
        """What stands for a light node in the UI: the task runs that it needs."""
        ids = (run_id for runs in self._parents(node).values() for run_id in runs)
        return tuple(dict.fromkeys(ids))

    def _specs(self, node: Node) -> dict[str, ResourceSpec]:
        return self.leases.resolve(node.resources) if node.resources else {}

    def _needs(self, node: Node) -> list[Any]:
        return self.leases.needs(self._specs(node).values())

    def _tell(self, name: str, state: Any, seconds: float = 0.0, **more: Any) -> None:
        self.watch(TaskEvent(run=self.leases.scope.run, node=name, state=state, seconds=seconds, **more))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from source"


_WRITERS = {"ml-platform": _version("ml-platform")}
