"""`@dag`: a function that declares a graph of tasks. The object is a Prefect `Flow`."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, get_type_hints, overload

import prefect

from ml_platform.engine.check import check_types
from ml_platform.engine.graph import Graph
from ml_platform.engine.lint import lint
from ml_platform.engine.plan import EngineSpec, Plan
from ml_platform.engine.secret_blocks import secrets_of_prefect
from ml_platform.engine.trace import current_trace, trace
from ml_platform.errors import GraphError

ENGINE = "engine"
"""The reserved parameter of every dag: see `EngineSpec`."""

P = ParamSpec("P")
R = TypeVar("R")


class Dag(prefect.Flow[P, R], Generic[P, R]):
    """A Prefect flow whose tasks are declared before any of them runs.

    Args:
        function: Calls tasks on parameters and on promises of other tasks; returns promises.
        preflight: Called before anything starts, with those parameters that it names. Must only read.
            Raises a `PlatformError` when no run with these parameters could work.
        options: Options of `prefect.Flow`, except `task_runner`: the engine runs the graph itself.
    """

    def __init__(
        self, function: Callable[P, R], *, preflight: Callable[..., None] | None = None, **options: Any
    ) -> None:
        where = f"{function.__module__}.{function.__qualname__}"
        if inspect.iscoroutinefunction(function):
            raise GraphError(
                f"dag {where} is async", hint="a dag only declares; make its tasks async instead"
            )
        if "task_runner" in options:
            raise GraphError(
                f"dag {where} names a task_runner", hint="the engine runs tasks side by side itself"
            )
        if ENGINE in inspect.signature(function).parameters:
            raise GraphError(f"dag {where} has a parameter {ENGINE!r}", hint="that name is the engine's own")
        lint(function)
        self.function = function
        self.preflight = preflight
        self.options = options
        super().__init__(fn=_runner(self), **{"persist_result": False, **options})
        if function.__module__ == "__main__":
            self._entrypoint = f"{inspect.getfile(function)}:{function.__qualname__}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it, as a Prefect flow run. Called in another dag, its tasks become part of that one."""
        under_way = current_trace()
        if under_way is None:
            return super().__call__(*args, **kwargs)
        with under_way.inside(self.name):
            return self.function(*args, **kwargs)

    def graph(self, **parameters: Any) -> Graph:
        """The graph for these parameters, traced and type-checked. Runs nothing.

        Raises:
            GraphError: A promise was used as a value, the graph moves, or an argument does not fit.
        """
        graph = trace(self.function, self.name, self.with_defaults(parameters))
        check_types(graph)
        return graph

    def plan(self, *, engine: EngineSpec | None = None, **parameters: Any) -> Plan:
        """What a run with these parameters would do now, and why. Runs nothing, and needs no server.

        Raises:
            GraphError: The graph cannot run.
        """
        from ml_platform.engine.flow_run import plan

        return plan(self, parameters, engine or EngineSpec()).plan

    def check(self, **parameters: Any) -> None:
        """Ask the dag's own preflight. Raises what it raises."""
        if self.preflight is not None:
            known = self.with_defaults(parameters)
            wanted = inspect.signature(self.preflight).parameters
            with secrets_of_prefect():
                self.preflight(**{name: known[name] for name in wanted})

    def with_defaults(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """All parameters but the engine's, validated as Prefect validates those of a run."""
        bound = inspect.signature(self.fn).bind(**parameters)
        bound.apply_defaults()
        validated = self.validate_parameters(dict(bound.arguments))
        return {name: value for name, value in validated.items() if name != ENGINE}

    def with_options(self, **options: Any) -> Dag[P, R]:
        """This dag with other options. Stays a dag."""
        other = type(self)(self.function, **{"preflight": self.preflight, **self.options, **options})
        other._storage, other._entrypoint = self._storage, self._entrypoint
        return other

    def cli(self, argv: Sequence[str] | None = None) -> None:
        """The command line of this dag: `run` (the default) and `graph`. Ends the process."""
        from ml_platform.cli.dag_command import main

        sys.exit(main(self._under_its_own_name(), argv))

    def _under_its_own_name(self) -> Dag[..., Any]:
        """This dag from its module, when that module was started as `__main__`."""
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        if self.function.__module__ != "__main__" or spec is None:
            return self
        found: Dag[..., Any] = getattr(importlib.import_module(spec.name), self.function.__name__)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self.function.__module__, self.function.__qualname__)


@overload
def dag(function: Callable[P, R], /) -> Dag[P, R]: ...
@overload
def dag(
    *, preflight: Callable[..., None] | None = None, **options: Any
) -> Callable[[Callable[P, R]], Dag[P, R]]: ...
def dag(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a dag. Options are those of `prefect.flow`."""
    if function is None:
        return functools.partial(dag, **options)
    return Dag(function, **options)


def _load(module: str, qualname: str) -> Any:
    found: Any = importlib.import_module(module)
    for name in qualname.split("."):
        found = getattr(found, name)
    return found


def _runner(dag: Dag[..., Any]) -> Callable[..., Any]:
    """The function that Prefect runs. Carries resolved annotations: Prefect would look up their names
    in this module, not in the user's."""

    @functools.wraps(dag.function)
    def run(*args: Any, **kwargs: Any) -> Any:
        from ml_platform.engine.flow_run import conclude

        bound = inspect.signature(run).bind(*args, **kwargs)
        bound.apply_defaults()
        parameters = dict(bound.arguments)
        return conclude(dag, parameters, parameters.pop(ENGINE))

    hints = get_type_hints(dag.function, include_extras=True)
    signature = inspect.signature(dag.function)
    typed = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in signature.parameters.values()]
    hints[ENGINE] = EngineSpec
    keyword = inspect.Parameter.KEYWORD_ONLY
    typed.append(inspect.Parameter(ENGINE, keyword, default=EngineSpec(), annotation=EngineSpec))
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=typed, return_annotation=hints.get("return", signature.return_annotation)
    )
    run.__annotations__ = hints
    return run
