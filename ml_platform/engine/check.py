"""What can be known before anything runs: types of edges, and what tasks and resources refuse."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError

from ml_platform.engine.graph import Graph, Node, Reference, references_in
from ml_platform.engine.task import _adapter
from ml_platform.engine.types import field_type, fits, type_name
from ml_platform.errors import GraphError, PlatformError
from ml_platform.resources.leases import Leases


def check_types(graph: Graph) -> None:
    """Every argument against the annotation of its parameter.

    Raises:
        GraphError: Lists all faults at once: node, parameter, wanted, got, and the user's line.
    """
    faults = [fault for node in graph.nodes for fault in _faults(graph, node)]
    if faults:
        many = "1 argument does not fit" if len(faults) == 1 else f"{len(faults)} arguments do not fit"
        raise GraphError(f"dag {graph.name!r} cannot run: {many}", evidence="\n".join(faults))


def _faults(graph: Graph, node: Node) -> Iterator[str]:
    for parameter, value in node.arguments.items():
        wanted = node.task.types[parameter]
        got = None if _argument_fits(graph, value, wanted) else _shown(graph, value)
        if got is not None:
            yield f"{node.name}.{parameter} ({node.where}): wanted {type_name(wanted)}, got {got}"


def _argument_fits(graph: Graph, value: Any, wanted: Any) -> bool:
    if isinstance(value, Reference):
        return fits(reference_type(graph, value), wanted)
    if next(references_in(value), None) is not None:
        return fits(_container_type(graph, value), wanted)
    try:
        _adapter(wanted).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def reference_type(graph: Graph, reference: Reference) -> Any:
    """Type of what a reference stands for."""
    found = graph[reference.node].task.output_type
    for name in reference.path:
        found = field_type(found, name)
    return found


def _container_type(graph: Graph, value: Any) -> Any:
    """Type of a list, tuple or dict that holds references."""
    if isinstance(value, Reference):
        return reference_type(graph, value)
    if isinstance(value, list):
        return list[_union([_container_type(graph, member) for member in value])]  # type: ignore[misc]
    if isinstance(value, tuple):
        return tuple[tuple(_container_type(graph, member) for member in value)]  # type: ignore[misc]
    if isinstance(value, dict):
        keys, members = [type(key) for key in value], [_container_type(graph, m) for m in value.values()]
        return dict[_union(keys), _union(members)]  # type: ignore[misc]
    return type(value)


def _union(members: list[Any]) -> Any:
    found = members[0]
    for member in members[1:]:
        found = found | member
    return found


def _shown(graph: Graph, value: Any) -> str:
    if isinstance(value, Reference):
        return f"{type_name(reference_type(graph, value))} from {value}"
    if next(references_in(value), None) is not None:
        return type_name(_container_type(graph, value))
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def preflight(graph: Graph, leases: Leases) -> None:
    """Ask every resource and task whether it could work, before anything starts.

    Raises:
        PlatformError: The one thing that stands in the way, or all of them under the first one's type.
    """
    questions = [*_resource_questions(graph, leases), *_task_questions(graph)]
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="preflight") as pool:
        answers = [error for error in pool.map(_ask, questions) if error is not None]
    if len(answers) == 1:
        raise answers[0]
    if answers:
        raise type(answers[0])(
            f"{len(answers)} things stand in the way of {graph.name}",
            evidence="\n".join(map(str, answers)),
        ) from answers[0]


def _ask(question: Callable[[], None]) -> PlatformError | None:
    try:
        question()
    except PlatformError as error:
        return error
    return None


def _resource_questions(graph: Graph, leases: Leases) -> Iterator[Callable[[], None]]:
    asked: set[str] = set()
    for node in graph.nodes:
        resolved = leases.resolve(node.resources)
        unasked = [spec for spec in resolved.values() if repr(spec) not in asked]
        asked.update(map(repr, unasked))
        if unasked:
            yield _bound(leases.preflight, unasked, task=node.name)


def _task_questions(graph: Graph) -> Iterator[Callable[[], None]]:
    for node in graph.nodes:
        ask = node.task.preflight
        if ask is None:
            continue
        wanted = inspect.signature(ask).parameters
        known = {name: node.arguments[name] for name in wanted if name in node.arguments}
        if len(known) == len(wanted) and next(references_in(known), None) is None:
            yield _bound(ask, **known)


def _bound(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], None]:
    def call() -> None:
        function(*args, **kwargs)

    return call
