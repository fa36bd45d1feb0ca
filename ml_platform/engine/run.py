"""The executor: walks the plan with a ready-queue inside one Prefect flow run."""

from __future__ import annotations

import ctypes
import time
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any
from uuid import UUID

from ml_platform.engine.accounts import Accounts
from ml_platform.engine.decide import Decision, World, decide
from ml_platform.engine.events import Watcher
from ml_platform.engine.graph import SKIPPED, Graph, Node
from ml_platform.engine.node_run import NodeRuns
from ml_platform.engine.outputs import ListOutput, Output, Values
from ml_platform.engine.plan import EngineSpec, Planned
from ml_platform.engine.threads import NodeThreads
from ml_platform.errors import GraphError, PlatformError, StoreError
from ml_platform.resources.budget import Need
from ml_platform.resources.leases import Leases
from ml_platform.store.records import RunRecord

MAX_THREADS = 32
FIRST_THREADS = 1
PATIENCE_S, LATE_S, BUSY_S = 0.02, 0.002, 0.25
"""Threads share one interpreter, also with the one that sends events: for small tasks one is as fast as any,
and leaves nothing to send for the end. There are twice as many each time that nothing ended for so long. Who
comes late from a wait has queued for a busy interpreter, which more threads would only make busier: then it
takes until nothing has ended for longer."""
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
        self.engine = engine
        self.outputs: dict[str, Output] = {}
        self.accounts = Accounts(self.world, leases, record, watch)
        self.states = self.accounts.states
        self._nodes = NodeRuns(graph.name, self.world, leases, self.accounts, self.outputs)
        self._decided = {decision.name: decision for decision in planned.plan.nodes if decision.result}
        self._known = planned.outputs
        self._show_cached = planned.plan.count("cached") <= SHOWN_CACHED_NODES
        self._missing = {node.name: len(node.parents) for node in graph.nodes}
        self._children: dict[str, list[Node]] = {}
        self._members: dict[str, list[str]] = {}
        self._left: dict[str, int] = {}
        self._owner: dict[str, Node] = {}
        self._ready: deque[Node] = deque(node for node in graph.nodes if not node.parents)
        self._admitted: deque[tuple[Node, Decision]] = deque()
        self._running: dict[Future[Output], Node] = {}
        self._held: dict[str, list[Need]] = {}
        self._ended: SimpleQueue[Future[Output]] = SimpleQueue()
        self._width = FIRST_THREADS
        self._failure: BaseException | None = None
        self._uses = {
            node.name: {repr(spec): spec for spec in self.accounts.specs(node).values()}
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
            self.accounts.tell(node.name, "waiting")
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
        distinct = {repr(spec): spec for node in needed for spec in self.accounts.specs(node).values()}
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
            self.accounts.tell(node.name, "skipped", message="its list is empty")
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
                continue
            needs = self.leases.needs(self.accounts.specs(node).values())
            if self.leases.budget.try_admit(needs):
                self._held[node.name] = needs
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
            return pool.submit(copy_context().run, self._nodes.run, node, decision)
        future: Future[Output] = Future()
        try:
            future.set_result(copy_context().run(self._nodes.run, node, decision))
        except Exception as error:  # noqa: BLE001  (as a thread would keep it)
            future.set_exception(error)
        return future

    def _next_ended(self) -> Future[Output] | None:
        """What ends next; None when there shall be more at once."""
        may_grow = self._admitted and self._width < MAX_THREADS
        began = asked = time.monotonic()
        while True:
            try:
                return self._ended.get(timeout=PATIENCE_S if may_grow else None)
            except Empty:
                now = time.monotonic()
                if now - asked < PATIENCE_S + LATE_S or now - began > BUSY_S:
                    self._width *= 2
                    return None
                asked = now

    def _collect(self) -> None:
        while self._running:
            future = self._next_ended()
            if future is None:
                return
            node = self._running.pop(future)
            self.leases.budget.release(self._held.pop(node.name))
            error = future.exception()
            if error is None:
                self._complete(node, future.result(), self.accounts.ids[node.name])
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
        self.accounts.ids[node.name] = ids
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
        ids = tuple(run_id for name in names for run_id in self.accounts.ids[name])
        state = "cached" if all(self.states[name] == "cached" for name in names) else "done"
        self.accounts.tell(owner.name, state)
        self._complete(owner, ListOutput([self.outputs[name] for name in names]), ids, state)

    def _reuse(self, node: Node, decision: Decision) -> None:
        output = self._known.get(node.name) or Output(result=decision.result, type_=node.task.output_type)
        ids = self.accounts.show(node, "Cached", decision.reason) if self._show_cached else ()
        stored = decision.result.output if decision.result else None
        self.accounts.record(node, decision, "cached", 0.0, output=stored, identity=output.known_identity)
        self.accounts.tell(node.name, "cached", message=decision.reason)
        self._complete(node, output, ids, "cached")

    def _skip(self, node: Node, reason: str) -> None:
        self.accounts.skipped(node, reason)
        self._complete(node, Output(SKIPPED), self.accounts.show(node, "Skipped", reason), "skipped")

    def _fail(self, node: Node, error: PlatformError, seconds: float, decision: Decision | None) -> None:
        """A node failed before it could start: its probe did, or the store."""
        self.accounts.record(node, decision, "failed", seconds, error=f"{type(error).__name__}: {error}")
        self.accounts.tell(node.name, "failed", seconds, message=error.what)
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
            self.accounts.tell(owner.name, "failed", message=f"{failed.name} failed")
        self._item_ended(failed)
        reason = f"{failed.declared} failed"
        after = self.graph.downstream(failed.declared)
        for node in self.graph.nodes:
            if node.name in after and node.name not in self.states:
                self.states[node.name] = "skipped"
                self._let_go(node)
                self.accounts.skipped(node, reason)

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
            thread = self._nodes.threads.get(self._running[future].name)
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
                self.accounts.tell(node.name, "skipped")

    def _abandon(self, node: Node) -> None:
        """Nothing ends a call into C that waits: its thread ends with the process, its task run is over."""
        reason = "it could not be interrupted; its thread ends with the process"
        self.states[node.name] = "failed"
        self.accounts.show_crash(node, reason)
        with suppress(StoreError):
            self.accounts.record(node, None, "failed", 0.0, error=reason)
        self.accounts.tell(node.name, "failed", message=reason)
