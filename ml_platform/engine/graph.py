"""The declared graph: nodes and typed edges. A plain value, printable and comparable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from ml_platform.specs.resources import ResourceSpec

if TYPE_CHECKING:
    from ml_platform.engine.task import Task


class Skipped:
    """The output of a node whose branch was not taken. Elsewhere it stands as None."""

    def __repr__(self) -> str:
        return "SKIPPED"


SKIPPED: Final = Skipped()


@dataclass(frozen=True)
class Reference:
    """The output of a node, a field or an item of it, standing as an argument of another node."""

    node: str
    path: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return self.node + "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in self.path)

    def resolve(self, results: Mapping[str, Any]) -> Any:
        """The value itself, once the node has run. None when it was skipped."""
        value = results[self.node]
        if value is SKIPPED:
            return None
        for at in self.path:
            value = value[at] if isinstance(at, int) else getattr(value, at)
        return value


@dataclass(frozen=True)
class Either:
    """The first of several references whose branch was taken."""

    options: tuple[Reference, ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.options))

    def resolve(self, results: Mapping[str, Any]) -> Any:
        """The value of the first option that was not skipped; None when all were."""
        taken = (option for option in self.options if results[option.node] is not SKIPPED)
        first = next(taken, None)
        return None if first is None else first.resolve(results)


@dataclass(frozen=True)
class Condition:
    """When the nodes of a branch run: the reference's value is among `values` (or is not)."""

    reference: Reference
    values: tuple[Any, ...] = (True,)
    negated: bool = False

    def __str__(self) -> str:
        said = " or ".join(map(repr, self.values))
        return f"{self.reference} is {'not ' if self.negated else ''}{said}"

    def holds(self, results: Mapping[str, Any]) -> bool:
        """Whether the branch is taken, once the reference's node has run."""
        return (self.reference.resolve(results) in self.values) is not self.negated


@dataclass(frozen=True)
class Node:
    """A task with its bound arguments.

    `over` names the parameter that takes each item of a list which is known only when its node has run;
    the argument is then a reference to the list, and the node's output a list. `member_of` names the
    mapped node from which this one was expanded.
    """

    name: str
    task: Task[..., Any] = field(compare=False, repr=False)
    function: str
    arguments: Mapping[str, Any]
    resources: Mapping[str, ResourceSpec]
    where: str = field(compare=False)
    conditions: tuple[Condition, ...] = ()
    over: str | None = None
    member_of: str | None = None

    @property
    def declared(self) -> str:
        """Name of the node in the graph."""
        return self.member_of or self.name

    @cached_property
    def inputs(self) -> dict[str, tuple[Reference, ...]]:
        """References per parameter, in the order in which they stand."""
        found = {name: tuple(references_in(value)) for name, value in self.arguments.items()}
        return {name: references for name, references in found.items() if references}

    @cached_property
    def parents(self) -> tuple[str, ...]:
        """Nodes that must have ended before, each once."""
        names = [reference.node for references in self.inputs.values() for reference in references]
        return tuple(dict.fromkeys([*names, *(condition.reference.node for condition in self.conditions)]))

    def expanded(self, items: int) -> tuple[Node, ...]:
        """One node for each item of the list that this node maps over."""
        if self.over is None:
            return (self,)
        whole: Reference = self.arguments[self.over]
        return tuple(
            replace(
                self,
                name=f"{self.name}[{at}]",
                arguments={**self.arguments, self.over: Reference(whole.node, (*whole.path, at))},
                over=None,
                member_of=self.name,
            )
            for at in range(items)
        )


@dataclass(frozen=True)
class Graph:
    """What a dag declares. `output` is what its function returned: references, or containers of them."""

    name: str
    nodes: tuple[Node, ...]
    output: Any = None

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def named(self, name: str) -> list[str]:
        """The node of this name, or all nodes of the task of this name."""
        return [name] if name in self else [node.name for node in self.nodes if node.task.name == name]

    def declared(self, name: str) -> str:
        """The mapped node from which `name` was expanded; any other name as it is."""
        mapped = name.rpartition("[")[0]
        return mapped if name not in self and mapped in self and self[mapped].over else name

    @property
    def edges(self) -> tuple[tuple[str, str, str], ...]:
        """(parent, child, parameter), each once."""
        found = [
            (reference.node, node.name, parameter)
            for node in self.nodes
            for parameter, references in node.inputs.items()
            for reference in references
        ]
        return tuple(dict.fromkeys(found))

    def upstream(self, name: str) -> set[str]:
        """A node and all that it needs."""
        found, waiting = set(), [name]
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                waiting.extend(self[current].parents)
        return found

    def downstream(self, name: str) -> set[str]:
        """A node and all that need it. Nodes stand after their parents, so one pass finds them."""
        found = {name}
        for node in self.nodes:
            if not found.isdisjoint(node.parents):
                found.add(node.name)
        return found

    def to_mermaid(self, states: Mapping[str, str] | None = None) -> str:
        """A Mermaid flowchart: tasks as boxes with their resources, edges labelled by parameter."""
        lines = ["flowchart TD"]
        for node in self.nodes:
            resources = ", ".join(resource_name(spec) for spec in node.resources.values())
            label = [node.name, f"<i>{resources}</i>" if resources else "", (states or {}).get(node.name, "")]
            label += [f"<i>for each {node.over}</i>" if node.over else ""]
            label += [f"<i>when {_escaped(str(condition))}</i>" for condition in node.conditions]
            lines.append(f'    {_identifier(node.name)}["{"<br/>".join(filter(None, label))}"]')
        lines += [
            f"    {_identifier(parent)} -->|{parameter}| {_identifier(child)}"
            for parent, child, parameter in self.edges
        ]
        return "\n".join(lines)


def references_in(value: Any) -> Iterator[Reference]:
    """Every reference in an argument: itself, or inside lists, tuples and dicts."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, Either):
        yield from value.options
    elif isinstance(value, list | tuple):
        for member in value:
            yield from references_in(member)
    elif isinstance(value, dict):
        for member in value.values():
            yield from references_in(member)


def fill(value: Any, results: Mapping[str, Any]) -> Any:
    """The argument with every reference replaced by the value it stands for."""
    if isinstance(value, Reference | Either):
        return value.resolve(results)
    if type(value) is list:
        return [fill(member, results) for member in value]
    if type(value) is tuple:
        return tuple(fill(member, results) for member in value)
    if type(value) is dict:
        return {key: fill(member, results) for key, member in value.items()}
    return value


def resource_name(spec: ResourceSpec) -> str:
    """A recipe as a person says it: `Spark`, `Horovod × 2`."""
    name = type(spec).__name__.removesuffix("Spec")
    ranks = getattr(spec, "ranks", None)
    return f"{name} × {ranks}" if ranks else name


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _escaped(text: str) -> str:
    return text.replace('"', "'")
