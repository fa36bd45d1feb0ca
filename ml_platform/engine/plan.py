"""The plan: what each node of a graph will do, and why. A plain value; making it runs nothing.

The planner gets the graph and read-only views. It never imports the executor.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, JsonValue
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ml_platform.engine.check import preflight_faults
from ml_platform.engine.decide import Decision, World, decide, is_new, ruled
from ml_platform.engine.graph import SKIPPED, Graph, Node, resource_name
from ml_platform.engine.keys import task_code
from ml_platform.engine.outputs import ListOutput, Output, Values
from ml_platform.errors import PlatformError
from ml_platform.resources.leases import Leases
from ml_platform.specs.base import Spec

SHOWN_USERS = 4
SHOWN_CAUSES = 3
STYLES = {"cached": "green", "run": "bold", "maybe": "yellow", "blocked": "bold red", "skipped": "dim"}


class EngineSpec(Spec):
    """What the engine does with a dag: the reserved parameter `engine` of every deployment."""

    mode: Literal["run", "plan", "resume"] = Field(
        "run", description="Run it, only plan it, or resume a run."
    )
    force: tuple[str, ...] = Field((), description="Tasks that run even if a result of theirs is stored.")
    until: str | None = Field(None, description="Run this task and what it needs, nothing else.")
    on_failure: Literal["stop", "finish"] = Field(
        "stop", description="After a failure: stop everything, or finish what does not depend on it."
    )
    run: str | None = Field(None, description="With mode `resume`: the run to continue.")
    from_task: str | None = Field(
        None, description="With mode `resume`: run this task and all after it anew."
    )
    accept: tuple[str, ...] = Field(
        (), description="With mode `resume`: tasks whose old result is reused although it is doubtful."
    )
    overrides: dict[str, JsonValue] = Field(
        {}, description="With mode `resume`: parameters that differ from those of that run, by dotted name."
    )


class PlannedResource(Spec):
    """Something that the run will hold open."""

    name: str
    tasks: tuple[str, ...]
    certain: bool = Field(description="Whether a task that surely runs needs it.")
    cores: int = 0
    memory_mib: int = 0
    gpus: int = 0
    slots: int = Field(0, description="Of the Spark application, kept as long as it is open.")


class Plan(Spec):
    """What a run would do now."""

    dag: str
    nodes: tuple[Decision, ...]
    resources: tuple[PlannedResource, ...]
    budget: str
    placement: str
    expected_seconds: float | None = Field(
        description="Of all nodes that run or may run, one after the other."
    )
    causes: tuple[str, ...] = Field(
        (), description="Why not everything is cached: nodes that run although what they are given is."
    )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the keys do not see, or cover in the large, each once."""
        return tuple(dict.fromkeys(note for node in self.nodes for note in node.notes))

    def __getitem__(self, name: str) -> Decision:
        return next(node for node in self.nodes if node.name == name)

    def count(self, verdict: str) -> int:
        return sum(node.verdict == verdict for node in self.nodes)

    def summary(self) -> str:
        """One line."""
        counts = [f"{self.count(verdict)} {verdict}" for verdict in STYLES if self.count(verdict)]
        time = f"; at most {self.expected_seconds:.0f} s of work" if self.expected_seconds else ""
        return f"{', '.join(counts)}{time}{self.because()}"

    def because(self) -> str:
        """A clause with the causes, where some results are stored and others are made again."""
        if not self.causes or not self.count("cached"):
            return ""
        more = f", and {len(self.causes) - SHOWN_CAUSES} more" if len(self.causes) > SHOWN_CAUSES else ""
        return f"; because of {'; '.join(self.causes[:SHOWN_CAUSES])}{more}"

    def __rich__(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for name in ("task", "verdict", "expected", "reason"):
            table.add_column(name, overflow="fold", justify="right" if name == "expected" else "left")
        for node in self.nodes:
            style = STYLES[node.verdict]
            table.add_row(node.name, Text(node.verdict, style), _seconds(node), node.reason)
        held = [Text(f"{resource.name:<14} {_said(resource)}") for resource in self.resources]
        notes = [Text(f"note           {note}", "yellow") for note in self.notes]
        budget = Text(f"budget         {self.budget}")
        return Group(table, Text(""), *held, budget, *notes, Text(self.summary()))

    def markdown(self) -> str:
        """The same for a page."""
        rows = [
            f"| {node.name} | **{node.verdict}** | {_seconds(node)} | {_cell(node.reason)} |"
            for node in self.nodes
        ]
        held = [f"- {resource.name}: {_said(resource)}" for resource in self.resources]
        head = ["| task | verdict | expected | reason |", "|---|---|---:|---|"]
        lines = [f"# Plan of {self.dag}", "", self.summary(), "", *head, *rows, "", *held]
        return "\n".join([*lines, f"- budget: {self.budget}", *(f"- note: {note}" for note in self.notes)])


@dataclass
class Planned:
    """A plan, and what was found out on the way."""

    plan: Plan
    outputs: dict[str, Output] = field(default_factory=dict)
    faults: list[PlatformError] = field(default_factory=list)


def make_plan(
    graph: Graph,
    world: World,
    leases: Leases,
    *,
    first: Callable[[Node], bool] = lambda node: False,
    surely: Callable[[Node], None] = lambda node: None,
) -> Planned:
    """Decide every node as far as that is possible now, and ask those that may run whether they could.

    Args:
        first: Nodes for which it is worth knowing soon, before the code of the others was read.
        surely: Told of each node that will run, as soon as that is known: others may still have to be asked.
    """
    with _garbage_left():
        for node in filter(first, graph.nodes):
            with suppress(PlatformError):  # it will be asked again, in its turn
                if is_new(node, world):
                    surely(node)
        for node in graph.nodes:
            task_code(node.task.function)
        planner = _Planner(graph, world, leases, surely)
        planner.decide_all()
        planner.ask()
        return Planned(planner.plan(), planner.outputs, planner.faults)


@contextmanager
def _garbage_left() -> Iterator[None]:
    """What a plan makes stays. Looking through it for garbage, again and again as it grows, is not linear."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Planner:
    def __init__(self, graph: Graph, world: World, leases: Leases, surely: Callable[[Node], None]) -> None:
        self.graph = graph
        self.world = world
        self.leases = leases
        self.surely = surely
        self.outputs: dict[str, Output] = {}
        self.faults: list[PlatformError] = []
        self._nodes: dict[str, Node] = {}
        self._members: dict[str, list[str]] = {}
        self._decisions: dict[str, Decision] = {}

    def decide_all(self) -> None:
        for node in self.graph.nodes:
            items = self._items(node)
            if items is None:
                self._decide(node)
                continue
            members = node.expanded(items)
            self._members[node.name] = [member.name for member in members]
            for member in members:
                self._decide(member)
            if not members:
                self._decisions[node.name] = ruled(node, "skipped", "the list is empty")
            if all(member.name in self.outputs for member in members):
                self.outputs[node.name] = ListOutput([self.outputs[member.name] for member in members])

    def _items(self, node: Node) -> int | None:
        """Over how many items a mapped node runs; None when that is not known, or it is not mapped."""
        if node.over is None or any(parent not in self.outputs for parent in node.parents):
            return None
        known = Values(self.outputs)
        if not all(condition.holds(known) for condition in node.conditions):
            return None
        return len(node.arguments[node.over].resolve(known) or ())

    def _decide(self, node: Node) -> None:
        self._nodes[node.name] = node
        stopped = [parent for parent in node.parents if self._is_blocked(parent)]
        try:
            decision = (
                ruled(node, "blocked", f"{stopped[0]} is blocked")
                if stopped
                else decide(node, self.outputs, self.world)
            )
        except PlatformError as error:
            self.faults.append(error)
            decision = ruled(node, "blocked", error.what)
        if node.over is not None and decision.verdict == "run":
            reason = f"{decision.reason}; for each item of a list that is not known yet"
            decision = decision.model_copy(update={"verdict": "maybe", "reason": reason})
        self._decisions[node.name] = decision
        if decision.verdict == "run":
            self.surely(node)
        if decision.result is not None:
            self.outputs[node.name] = Output(result=decision.result, type_=node.task.output_type)
        elif decision.verdict == "skipped":
            self.outputs[node.name] = Output(SKIPPED)

    def _is_blocked(self, parent: str) -> bool:
        names = self._members.get(parent, [parent])
        return any(self._decisions[name].verdict == "blocked" for name in names)

    def ask(self) -> None:
        """Preflight of tasks and resources, for what may run."""
        coming = [
            self._nodes[name]
            for name, decision in self._decisions.items()
            if decision.verdict in ("run", "maybe")
        ]
        for name, error in preflight_faults(coming, self.outputs, self.leases):
            self.faults.append(error)
            for hit in [name, *self._after(name)]:
                if self._decisions[hit].verdict in ("run", "maybe"):
                    reason = error.what if hit == name else f"{name} is blocked"
                    self._decisions[hit] = self._decisions[hit].model_copy(
                        update={"verdict": "blocked", "reason": reason}
                    )

    def _after(self, name: str) -> list[str]:
        found, after = {self._nodes[name].declared}, []
        for node in self._nodes.values():
            if not found.isdisjoint(node.parents):
                found.add(node.declared)
                after.append(node.name)
        return after

    def plan(self) -> Plan:
        coming = [d for d in self._decisions.values() if d.verdict in ("run", "maybe")]
        times = [d.expected_seconds for d in coming if d.expected_seconds is not None]
        return Plan(
            dag=self.graph.name,
            nodes=tuple(self._decisions.values()),
            resources=tuple(self._resources(coming)),
            budget=str(self.leases.budget),
            placement=self.leases.scope.placement.name,
            expected_seconds=sum(times) if times or not coming else None,
            causes=tuple(f"{d.name} ({d.reason})" for d in coming if self._is_cause(d)),
        )

    def _is_cause(self, decision: Decision) -> bool:
        parents = self._nodes[decision.name].parents
        return decision.verdict == "run" and all(parent in self.outputs for parent in parents)

    def _resources(self, coming: Sequence[Decision]) -> Iterator[PlannedResource]:
        users: dict[str, list[str]] = {}
        specs = {}
        certain = set()
        for decision in coming:
            for spec in self.leases.resolve(self._nodes[decision.name].resources).values():
                name = resource_name(spec)
                specs[name] = spec
                users.setdefault(name, []).append(decision.name)
                if decision.verdict == "run":
                    certain.add(name)
        for name, spec in specs.items():
            need = self.leases.needs([spec])[0]
            yield PlannedResource(
                name=name,
                tasks=tuple(users[name]),
                certain=name in certain,
                cores=need.cores,
                memory_mib=need.memory_mib,
                gpus=need.gpus,
                slots=need.slots if need.kept else 0,
            )


def _seconds(node: Decision) -> str:
    if node.expected_seconds is None or node.verdict in ("cached", "skipped", "blocked"):
        return ""
    return f"{node.expected_seconds:.1f} s"


def _said(resource: PlannedResource) -> str:
    needs: Mapping[str, Any] = {
        "cores": resource.cores,
        "MiB": resource.memory_mib,
        "GPUs": resource.gpus,
        "Spark slots": resource.slots,
    }
    shown = ", ".join(f"{amount} {unit}" for unit, amount in needs.items() if amount)
    certain = "" if resource.certain else "only if a task that may run does run; "
    users = ", ".join(resource.tasks[:SHOWN_USERS]) + (" …" if len(resource.tasks) > SHOWN_USERS else "")
    return f"{certain}{shown}{', ' if shown else ''}for {users}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
