"""The declared graph: nodes and typed edges. A plain value, printable and comparable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml_platform.specs.resources import ResourceSpec

if TYPE_CHECKING:
    from ml_platform.engine.task import Task


@dataclass(frozen=True)
class Reference:
    """The output of a node, or a field of it, standing as an argument of another node."""

    node: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ".".join((self.node, *self.path))

    def resolve(self, results: Mapping[str, Any]) -> Any:
        """The value itself, once the node has run."""
        value = results[self.node]
        for name in self.path:
            value = getattr(value, name)
        return value


@dataclass(frozen=True)
class Node:
    """A task with its bound arguments."""

    name: str
    task: Task[..., Any] = field(compare=False, repr=False)
    function: str
    arguments: Mapping[str, Any]
    resources: Mapping[str, ResourceSpec]
    where: str = field(compare=False)

    @property
    def inputs(self) -> dict[str, tuple[Reference, ...]]:
        """References per parameter, in the order in which they stand."""
        found = {name: tuple(references_in(value)) for name, value in self.arguments.items()}
        return {name: references for name, references in found.items() if references}

    @property
    def parents(self) -> tuple[str, ...]:
        """Nodes that must have run before, each once."""
        names = [reference.node for references in self.inputs.values() for reference in references]
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class Graph:
    """What a dag declares. `output` is what its function returned: references, or containers of them."""

    name: str
    nodes: tuple[Node, ...]
    output: Any = None

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

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

    def to_mermaid(self, states: Mapping[str, str] | None = None) -> str:
        """A Mermaid flowchart: tasks as boxes with their resources, edges labelled by parameter."""
        lines = ["flowchart TD"]
        for node in self.nodes:
            resources = ", ".join(_resource_name(spec) for spec in node.resources.values())
            state = f"<br/>{states[node.name]}" if states and node.name in states else ""
            label = f"{node.name}{f'<br/><i>{resources}</i>' if resources else ''}{state}"
            lines.append(f'    {_identifier(node.name)}["{label}"]')
        lines += [
            f"    {_identifier(parent)} -->|{parameter}| {_identifier(child)}"
            for parent, child, parameter in self.edges
        ]
        return "\n".join(lines)


def references_in(value: Any) -> Iterator[Reference]:
    """Every reference in an argument: itself, or inside lists, tuples and dicts."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, list | tuple):
        for member in value:
            yield from references_in(member)
    elif isinstance(value, dict):
        for member in value.values():
            yield from references_in(member)


def fill(value: Any, results: Mapping[str, Any]) -> Any:
    """The argument with every reference replaced by the value it stands for."""
    if isinstance(value, Reference):
        return value.resolve(results)
    if isinstance(value, list):
        return [fill(member, results) for member in value]
    if isinstance(value, tuple):
        return tuple(fill(member, results) for member in value)
    if isinstance(value, dict):
        return {key: fill(member, results) for key, member in value.items()}
    return value


def _identifier(name: str) -> str:
    return name.replace("-", "_")


def _resource_name(spec: ResourceSpec) -> str:
    name = type(spec).__name__.removesuffix("Spec")
    ranks = getattr(spec, "ranks", None)
    return f"{name} × {ranks}" if ranks else name
