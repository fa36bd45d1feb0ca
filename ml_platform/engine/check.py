"""What can be known before anything runs: types of edges, and what tasks and resources refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from pydantic import ValidationError

from ml_platform.engine.decide import known_arguments
from ml_platform.engine.graph import Condition, Either, Graph, Node, Reference, references_in
from ml_platform.engine.outputs import Output, adapter
from ml_platform.engine.types import (
    breaches,
    field_type,
    fits,
    item_types,
    list_item,
    list_of,
    optional,
    type_name,
    type_of,
    union,
    value_breaches,
)
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
        if node.over == parameter:
            wanted = list_of(wanted)
        for got in _misfits(graph, node, value, wanted):
            yield f"{node.name}.{parameter} ({node.where}): wanted {type_name(wanted)}, got {got}"


def _misfits(graph: Graph, node: Node, value: Any, wanted: Any) -> Iterator[str]:
    if next(references_in(value), None) is None:
        if not _is_valid(value, wanted):
            yield _shown(value)
        elif reasons := value_breaches(value, wanted):
            yield f"{_shown(value)}: {'; '.join(reasons)}"
        return
    got = _type_of(graph, node, value)
    said = f"{type_name(got)} from {value}" if isinstance(value, Reference | Either) else type_name(got)
    if not fits(got, wanted):
        yield said
    elif reasons := breaches(got, wanted):
        # An output without a contract is checked when it is there, at the border of the task.
        yield f"{said}: {'; '.join(reasons)}"


def _is_valid(value: Any, wanted: Any) -> bool:
    if getattr(wanted, "_is_protocol", False):
        return fits(type(value), wanted)
    try:
        adapter(wanted).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def _annotation(graph: Graph, reference: Reference) -> Any:
    node = graph[reference.node]
    found = node.task.output_type if node.over is None else list_of(node.task.output_type)
    for at in reference.path:
        members = item_types(found)
        found = (
            field_type(found, at) if isinstance(at, str) else (members or (list_item(found),) * (at + 1))[at]
        )
    return found


def _type_of(graph: Graph, user: Node, value: Any) -> Any:
    """Type of an argument that holds references; as `user` sees it, when they stand in branches."""
    if isinstance(value, Reference):
        found = _annotation(graph, value)
        taken = set(graph[value.node].conditions) <= set(user.conditions)
        return found if taken else optional(found)
    if isinstance(value, Either):
        found = union([_annotation(graph, option) for option in value.options])
        return found if _exhaustive(graph, user, value) else optional(found)
    if isinstance(value, list):
        return list[union([_type_of(graph, user, member) for member in value])]  # type: ignore[misc]
    if isinstance(value, tuple):
        return tuple[tuple(_type_of(graph, user, member) for member in value)]  # type: ignore[misc]
    if isinstance(value, dict):
        members = [_type_of(graph, user, member) for member in value.values()]
        return dict[union([type(key) for key in value]), union(members)]  # type: ignore[misc]
    return Literal[value] if isinstance(value, str | int) else type_of(value)


def _exhaustive(graph: Graph, user: Node, value: Either) -> bool:
    """Whether one of the options runs wherever `user` does: one has no further condition, or two have
    opposite ones."""
    conditions = [
        tuple(condition for condition in graph[option.node].conditions if condition not in user.conditions)
        for option in value.options
    ]
    opposite = {
        (Condition(c.reference, c.values, not c.negated),)
        for (c, *more) in filter(None, conditions)
        if not more
    }
    return () in conditions or not opposite.isdisjoint(conditions)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def preflight_faults(
    nodes: Sequence[Node], outputs: Mapping[str, Output], leases: Leases
) -> list[tuple[str, PlatformError]]:
    """Ask every resource and task of these nodes whether it could work. They only look.

    Args:
        outputs: What is known already: a task is asked once all that it wants to know is.
    Returns:
        What stands in the way, with the first node that it stops.
    """
    questions = [*_resource_questions(nodes, leases), *_task_questions(nodes, outputs)]
    if not questions:
        return []
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="preflight") as pool:
        answers = pool.map(_ask, *zip(*questions, strict=True))
        return [(name, error) for (name, _), error in zip(questions, answers, strict=True) if error]


def refuse(dag: str, faults: Sequence[PlatformError]) -> None:
    """Raise what stands in the way of a run: the one thing, or all of them under the first one's type."""
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise type(faults[0])(
            f"{len(faults)} things stand in the way of {dag}", evidence="\n".join(map(str, faults))
        ) from faults[0]


def _ask(name: str, question: Callable[[], None]) -> PlatformError | None:
    try:
        question()
    except PlatformError as error:
        return error
    except Exception as error:  # noqa: BLE001  (the user's own code: whatever it is stands in the way)
        return PlatformError(f"the preflight of {name} failed", got=f"{type(error).__name__}: {error}")
    return None


def _resource_questions(nodes: Sequence[Node], leases: Leases) -> Iterator[tuple[str, Callable[[], None]]]:
    asked: set[str] = set()
    for node in nodes:
        resolved = leases.resolve(node.resources)
        unasked = [spec for spec in resolved.values() if repr(spec) not in asked]
        asked.update(map(repr, unasked))
        if unasked:
            yield node.name, _bound(leases.preflight, unasked, task=node.name)


def _task_questions(
    nodes: Sequence[Node], outputs: Mapping[str, Output]
) -> Iterator[tuple[str, Callable[[], None]]]:
    for node in nodes:
        ask = node.task.preflight
        known = None if ask is None else known_arguments(ask, node, outputs)
        if ask is not None and known is not None:
            yield node.name, _bound(ask, **known)


def _bound(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], None]:
    def call() -> None:
        function(*args, **kwargs)

    return call
