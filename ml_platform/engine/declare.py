"""What a dag's function may do besides calling tasks: branch, fan out, join."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ml_platform.engine.graph import Condition, Either, Reference
from ml_platform.engine.task import Task
from ml_platform.engine.trace import Promise, Trace, current_trace, user_line
from ml_platform.engine.types import fits, list_item, type_name, union
from ml_platform.errors import GraphError


class Branch:
    """The block under `with when(…)`. `otherwise()` opens the block for the other case."""

    def __init__(self, condition: Condition, trace: Trace) -> None:
        self._condition = condition
        self._trace = trace

    @contextmanager
    def otherwise(self) -> Iterator[None]:
        """Tasks called inside run when those of the branch do not."""
        other = Condition(self._condition.reference, self._condition.values, not self._condition.negated)
        with self._trace.under(other):
            yield


def when(promise: Any, *values: Any) -> AbstractContextManager[Branch]:
    """Tasks called inside run only if the promise turns out to be one of the values (default: True).

    Outside of the block their promises may be None; `either` takes the branch that ran.

        with when(verdict.decision, "promote") as promoted:
            serving = promote(model)
        with promoted.otherwise():
            serving_as_before = find_champion(name)
        score(either(serving, serving_as_before))
    """
    trace = _trace("when")
    if not isinstance(promise, Promise) or not isinstance(promise._reference, Reference):
        raise GraphError(
            f"when(…) wants a promise ({user_line()})",
            got=repr(promise),
            hint="a plain value needs no branch in the graph: use `if`",
        )
    if not values and not fits(promise._type, bool):
        raise GraphError(
            f"when(…) wants a promise of a bool, or the values to look for ({user_line()})",
            got=repr(promise),
            hint='for example when(verdict.decision, "promote")',
        )
    return _branch(Condition(promise._reference, values or (True,)), trace)


@contextmanager
def _branch(condition: Condition, trace: Trace) -> Iterator[Branch]:
    with trace.under(condition):
        yield Branch(condition, trace)


def either(*promises: Any) -> Any:
    """The first of these whose branch ran. The others' tasks were skipped."""
    _trace("either")
    chosen = [promise for promise in promises if isinstance(promise, Promise)]
    references = [promise._reference for promise in chosen]
    if len(promises) < 2 or len(chosen) < len(promises) or any(isinstance(r, Either) for r in references):
        raise GraphError(f"either(…) wants two or more promises of tasks ({user_line()})", got=repr(promises))
    return Promise(Either(tuple(references)), union([promise._type for promise in chosen]))  # type: ignore[arg-type]


def map_over(task: Callable[..., Any], items: Any, /, **fixed: Any) -> Any:
    """Call a task once for each item, side by side; `fixed` arguments are the same for all.

    Args:
        task: A task. Its first parameter takes each item.
        items: A list, whose items may be promises; or the promise of a list, which is expanded into
            tasks once it is known.
    Returns:
        A list of promises; for the promise of a list, the promise of a list.
    """
    trace = _trace("map_over")
    if not isinstance(task, Task):
        raise GraphError(f"map_over(…) wants a task first ({user_line()})", got=repr(task))
    first = next(name for name in task.signature.parameters)
    if not isinstance(items, Promise):
        return [task(**{first: item}, **fixed) for item in _checked_list(items)]
    if list_item(items._type) is None or isinstance(items._reference, Either):
        raise GraphError(
            f"map_over({task.name}, …) wants a list, or the promise of one ({user_line()})",
            got=type_name(items._type),
        )
    arguments, resources = task.bind(**{first: items}, **fixed)
    return trace.add(task, arguments, resources, over=first)


def _checked_list(items: Any) -> Sequence[Any]:
    if isinstance(items, list | tuple | range):
        return items
    raise GraphError(f"map_over(…) wants a list, or the promise of one ({user_line()})", got=repr(items))


def _trace(verb: str) -> Trace:
    under_way = current_trace()
    if under_way is None:
        raise GraphError(
            f"{verb}(…) outside of a @dag", hint="in a plain flow or a test use Python's own words"
        )
    return under_way
