"""Tracing: a dag's function runs once with promises in place of results, and leaves a graph."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ml_platform.engine.graph import Condition, Either, Graph, Node, Reference
from ml_platform.engine.types import field_type, item_types, list_of, type_name
from ml_platform.errors import GraphError
from ml_platform.specs.resources import ResourceSpec

if TYPE_CHECKING:
    from ml_platform.engine.task import Task

_ENGINE = str(Path(__file__).parent)


class Promise:
    """What a task will return. It can be handed to other tasks, and its declared fields can be named.

    A promise of a tuple of fixed length can be unpacked: `train, rest = cut(table)`.
    """

    __slots__ = ("_reference", "_type")

    def __init__(self, reference: Reference | Either, type_: Any) -> None:
        self._reference = reference
        self._type = type_

    def __getattr__(self, name: str) -> Promise:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._inside(name, field_type(self._type, name))
        except AttributeError as error:
            raise GraphError(
                f"promise of {self._reference} has no {name!r} ({user_line()})", got=error
            ) from error

    def __iter__(self) -> Iterator[Promise]:
        members = item_types(self._type)
        if members is None:
            self._refuse()
        return iter([self._inside(at, member) for at, member in enumerate(members)])

    def __getitem__(self, at: int) -> Promise:
        members = item_types(self._type)
        if members is None or not -len(members) <= at < len(members):
            self._refuse()
        return self._inside(at % len(members), members[at])

    def _inside(self, at: str | int, type_: Any) -> Promise:
        if isinstance(self._reference, Either):
            raise GraphError(
                f"part {at!r} of either(…) ({user_line()})",
                hint="hand it to a task whole, and take its part there",
            )
        return Promise(Reference(self._reference.node, (*self._reference.path, at)), type_)

    def __repr__(self) -> str:
        return f"<promise of {self._reference}: {type_name(self._type)}>"

    def _refuse(self, *_: Any) -> NoReturn:
        raise GraphError(
            f"a promise was used as a value in a dag ({user_line()})",
            wanted="promises handed to tasks, whole or by a declared field",
            got=f"{self!r} in an expression",
            hint="do it inside a task: a dag declares what runs, its function never sees results; "
            "`when(promise)` branches, `map_over(task, promise)` fans out",
        )

    __bool__ = __len__ = __contains__ = __call__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __str__ = __format__ = __int__ = __float__ = __index__ = _refuse
    __hash__ = object.__hash__


class Trace:
    """The graph while it is being declared."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.conditions: tuple[Condition, ...] = ()
        self._prefix = ""
        self._taken: set[str] = set()
        self._asked: Counter[str] = Counter()

    def add(
        self,
        task: Task[..., Any],
        arguments: Mapping[str, Any],
        resources: Mapping[str, ResourceSpec],
        *,
        over: str | None = None,
    ) -> Promise:
        """Declare one node. Returns the promise of its output."""
        name = self._unique(self._prefix + task.name)
        self.nodes.append(
            Node(
                name=name,
                task=task,
                function=f"{task.function.__module__}.{task.function.__qualname__}",
                arguments={key: to_references(value) for key, value in arguments.items()},
                resources=dict(resources),
                where=user_line(),
                conditions=self.conditions,
                over=over,
            )
        )
        return Promise(Reference(name), task.output_type if over is None else list_of(task.output_type))

    @contextmanager
    def inside(self, dag: str) -> Iterator[None]:
        """Nodes declared inside belong to this dag, which another one calls."""
        before = self._prefix
        self._prefix = self._unique(before + dag) + "."
        try:
            yield
        finally:
            self._prefix = before

    @contextmanager
    def under(self, condition: Condition) -> Iterator[None]:
        """Nodes declared inside run only if the condition holds."""
        before = self.conditions
        self.conditions = (*before, condition)
        try:
            yield
        finally:
            self.conditions = before

    def _unique(self, name: str) -> str:
        candidate = name
        while candidate in self._taken:
            self._asked[name] += 1
            candidate = f"{name}-{self._asked[name] + 1}"
        self._taken.add(candidate)
        return candidate


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current_trace() -> Trace | None:
    """The trace under way in this context, if a dag is being declared."""
    return _current.get()


@contextmanager
def _tracing() -> Iterator[Trace]:
    trace = Trace()
    token = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(token)


def trace(function: Callable[..., Any], name: str, parameters: Mapping[str, Any]) -> Graph:
    """Declare the graph of a dag's function for these parameters.

    Traced twice: a function that reads the time, a random number or anything else that moves would
    declare one graph in the plan and another in the run.

    Raises:
        GraphError: A promise was used as a value, or the two traces differ.
    """
    first, second = (_trace_once(function, name, parameters) for _ in range(2))
    differ = [a.name for a, b in zip(first.nodes, second.nodes, strict=False) if not _alike(a, b)]
    if differ or len(first.nodes) != len(second.nodes) or first.output != second.output:
        raise GraphError(
            f"dag {name!r} declares another graph each time",
            wanted="the same tasks and arguments from the same parameters",
            got=f"two traces differ at {', '.join(differ) or 'their number of tasks or their output'}",
            hint="hand time and randomness in as parameters, or read them inside a task",
        )
    return first


def _alike(one: Node, other: Node) -> bool:
    try:
        return one == other
    except ValueError:
        # An array compares item by item.
        from ml_platform.engine.keys import value_digest

        values = (value_digest(dict(node.arguments)) for node in (one, other))
        return one.inputs == other.inputs and next(values) == next(values)


def _trace_once(function: Callable[..., Any], name: str, parameters: Mapping[str, Any]) -> Graph:
    with _tracing() as under_way:
        output = function(**parameters)
    return Graph(name=name, nodes=tuple(under_way.nodes), output=to_references(output))


def to_references(value: Any) -> Any:
    """Promises, also inside lists, tuples and dicts, as the references they stand for."""
    if isinstance(value, Promise):
        return value._reference
    # Of these very types: a Counter or a named tuple stays what it is.
    if type(value) is list:
        return [to_references(member) for member in value]
    if type(value) is tuple:
        return tuple(to_references(member) for member in value)
    if type(value) in (dict, set, frozenset):
        for member in value:
            if isinstance(member, Promise):
                member._refuse()
    if type(value) is dict:
        return {key: to_references(member) for key, member in value.items()}
    return value


def user_line() -> str:
    """`file:line` of the nearest caller outside the engine."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_ENGINE):
        frame = frame.f_back
    if frame is None:
        return "unknown line"
    # Asked for every call in a dag: a Path would cost more than the rest of it.
    return f"{frame.f_code.co_filename.rpartition(os.sep)[2]}:{frame.f_lineno}"
