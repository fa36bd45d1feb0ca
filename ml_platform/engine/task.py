"""`@task`: a typed Python function whose signature declares data, parameters, resources and output."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, get_type_hints, overload

import prefect
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from pydantic import ValidationError

from ml_platform.engine.outputs import adapter
from ml_platform.engine.prefect_door import current_node, took_too_long
from ml_platform.engine.secret_blocks import secrets_of_prefect
from ml_platform.engine.trace import current_trace, user_line
from ml_platform.engine.types import type_name, value_breaches
from ml_platform.errors import (
    DataError,
    DesyncError,
    GraphError,
    InfrastructureError,
    PlatformError,
    RankError,
    RankLostError,
    TaskTimeoutError,
    one_line,
)
from ml_platform.resources.leases import current_leases
from ml_platform.resources.planning import refuse_while_planning
from ml_platform.resources.progress import report
from ml_platform.specs.resources import ResourceSpec

P = ParamSpec("P")
R = TypeVar("R")

_OWN_OPTIONS = (
    "preflight",
    "probe",
    "verify",
    "cache",
    "reads",
    "environment",
    "placement_free",
    "whole",
    "light",
)


def worth_retrying(task: Any, run: Any, state: State[Any]) -> bool:
    """Whether the same again may help: never after wrong data or a wrong request.

    A rank or an executor that was lost is tried again unasked; other errors only where `retries` asks.
    """
    error = state.data
    if not isinstance(error, Exception) or current_leases().stopped:
        return False
    again = machine_failed(error) or ("retries" in task.options and not _is_final(error))
    if again:
        report(f"tried again: {one_line(error)}")
    return again


def machine_failed(error: BaseException) -> bool:
    """Whether a machine failed the task, so that the same again may work. A rank that raised is none."""
    if isinstance(error, RankError):
        return isinstance(error, RankLostError)
    return isinstance(error, InfrastructureError) and not isinstance(error, DesyncError | TaskTimeoutError)


def _is_final(error: Exception) -> bool:
    return isinstance(error, PlatformError) and not isinstance(error, TaskTimeoutError | RankError)


_DEFAULTS: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 1,
    "retry_condition_fn": worth_retrying,
}


Verify = Callable[..., str | None]


class Task(prefect.Task[P, R], Generic[P, R]):
    """A Prefect task with a typed signature and resources that the engine opens.

    Under `@dag` a call declares a node. Anywhere else, in a plain `@prefect.flow`, a test or a REPL,
    it runs at once. Everything a `prefect.Task` takes works here too.

    `preflight`, `probe` and `verify` are called with those arguments of the task that they name, as far
    as they are known by then. They must only read.

    Args:
        function: The user's function. Every parameter and the return value need an annotation.
        preflight: Called before anything of a run starts. Raises a `PlatformError` when the task could
            not work.
        probe: Returns what the task will see of the world besides its arguments: the identity of a file,
            the version that serves. It enters the key: when it moved, the task runs again.
        verify: Called with `output` too before a stored result is used again. Returns why it no longer
            holds, or None: for tasks whose effect lies outside, a registered model or a file.
        cache: Whether a stored result may be used at all.
        reads: Files that the task reads by name, as patterns below the working folder.
        environment: Variables that the task reads.
        placement_free: The result is the same for any number of ranks and any Spark settings.
        whole: Parameters of which everything counts, fields marked `Location` or `NotIdentity` too: of a
            task that tells where things are and how they came about.
        light: Under `@dag` it is no task run of Prefect's, which would cost more than a task of some
            milliseconds: planned, keyed, stored, recorded and given its resources like any other, and tried
            again after a failure of the infrastructure; but not shown in the UI.
        options: Options of `prefect.Task`. By default a task is tried again once, and only after a
            failure of the infrastructure; with `retries` also after errors that are none of ours.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        preflight: Callable[..., None] | None = None,
        probe: Callable[..., Any] | None = None,
        verify: Verify | None = None,
        cache: bool = True,
        reads: Sequence[str] = (),
        environment: Sequence[str] = (),
        placement_free: bool = False,
        whole: Sequence[str] = (),
        light: bool = False,
        **options: Any,
    ) -> None:
        self.function = function
        self.preflight = preflight
        self.probe = probe
        self.verify = verify
        self.cache = cache
        self.reads = _names("reads", reads)
        self.environment = _names("environment", environment)
        self.placement_free = placement_free
        self.whole = _names("whole", whole)
        self.light = light
        self.options = options
        self.signature = inspect.signature(function)
        self.recipes = _recipes(self.signature)
        _check_whole(self)
        if light:
            _check_light(self)
        self.types = _annotations(function, self.signature, self.recipes)
        self.output_type: Any = self.types.pop("return")
        super().__init__(fn=_with_resources(self), **{**_DEFAULTS, **options})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Declare a node under `@dag`; run at once anywhere else."""
        under_way = current_trace()
        if under_way is None:
            return super().__call__(*args, **kwargs)
        arguments, resources = self.bind(*args, **kwargs)
        return under_way.add(self, arguments, resources)

    def bind(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, ResourceSpec]]:
        """Arguments and recipes of a call, defaults applied."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            where = f" ({user_line()})" if current_trace() is not None else ""
            raise GraphError(
                f"call of task {self.name!r} does not fit its signature{where}",
                wanted=f"{self.name}{self.signature}",
                got=error,
            ) from error
        bound.apply_defaults()
        resources = {k: v for k, v in bound.arguments.items() if isinstance(v, ResourceSpec)}
        return {k: v for k, v in bound.arguments.items() if k not in resources}, resources

    def with_options(self, **options: Any) -> Task[P, R]:
        """This task with other options. Stays a task of this kind."""
        own = {name: getattr(self, name) for name in _OWN_OPTIONS}
        return type(self)(self.function, **{**own, **self.options, **options})

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """As in Prefect; under `@dag` a plain call declares the node."""
        _refuse_under_dag(self, "submit")
        return super().submit(*args, **kwargs)

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """As in Prefect; not under `@dag`."""
        _refuse_under_dag(self, "map")
        return super().map(*args, **kwargs)

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """As in Prefect; not under `@dag`."""
        _refuse_under_dag(self, "delay")
        return super().delay(*args, **kwargs)


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    preflight: Callable[..., None] | None = None,
    probe: Callable[..., Any] | None = None,
    verify: Verify | None = None,
    cache: bool = True,
    reads: Sequence[str] = (),
    environment: Sequence[str] = (),
    placement_free: bool = False,
    whole: Sequence[str] = (),
    light: bool = False,
    **options: Any,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task. Options are those of `Task` and of `prefect.Task`.

    >>> @task(retries=2)
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> double.fn(21)
    42
    """
    if function is None:
        return functools.partial(task, **options)
    return Task(function, **options)


def _refuse_under_dag(task: Task[..., Any], verb: str) -> None:
    if current_trace() is not None:
        raise GraphError(
            f"{task.name}.{verb}(…) under @dag",
            hint=f"call it: {task.name}(…); tasks that do not wait for each other run side by side",
        )


def _names(option: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or any(Path(name).is_absolute() for name in names):
        raise GraphError(
            f"@task({option}=…) names what a key covers", wanted="a list of names", got=repr(names)
        )
    return tuple(names)


def _check_whole(task: Task[..., Any]) -> None:
    """A name with a mistake in it would leave out what was to count."""
    known = [name for name in task.signature.parameters if name not in task.recipes]
    if unknown := [name for name in task.whole if name not in known]:
        raise GraphError(
            f"@task(whole=…) of {task.function.__qualname__} names parameters",
            wanted=f"some of {', '.join(known)}",
            got=", ".join(unknown),
        )


_OF_TASK_RUNS = ("retries", "timeout_seconds", "on_completion", "on_failure", "on_running", "log_prints")


def _check_light(task: Task[..., Any]) -> None:
    asked = [name for name in _OF_TASK_RUNS if name in task.options]
    if asked or inspect.iscoroutinefunction(task.function):
        raise GraphError(
            f"task {task.function.__qualname__} cannot be light",
            wanted="a function without retries, hooks or time limits",
            got=", ".join(asked) or "an async function",
            hint="leave light=True out: then it is a task run of Prefect's",
        )


def _recipes(signature: inspect.Signature) -> dict[str, ResourceSpec]:
    defaults = ((name, parameter.default) for name, parameter in signature.parameters.items())
    return {name: default for name, default in defaults if isinstance(default, ResourceSpec)}


def _annotations(
    function: Callable[..., Any], signature: inspect.Signature, recipes: Mapping[str, ResourceSpec]
) -> dict[str, Any]:
    """Types of all parameters but resources, and of `return`.

    A resource's annotation may be known to type checkers alone (SparkSession under TYPE_CHECKING), so
    it is not evaluated: its recipe says what it is.
    """
    wanted = [name for name in signature.parameters if name not in recipes] + ["return"]
    written = inspect.get_annotations(function)
    bare = [name for name in wanted if name not in written]
    where = f"{function.__module__}.{function.__qualname__}"
    if bare:
        raise GraphError(
            f"task {where} lacks annotations",
            wanted="a type for every parameter and for the return value",
            got=f"none for {', '.join(bare)}",
        )
    try:
        chosen = types.SimpleNamespace(__annotations__={name: written[name] for name in wanted})
        return get_type_hints(chosen, globalns=function.__globals__, include_extras=True)
    except NameError as error:
        raise GraphError(
            f"an annotation of task {where} names something that is not imported at run time",
            got=error,
            hint="import it outside `if TYPE_CHECKING:`",
        ) from error


def _with_resources(task: Task[..., Any]) -> Callable[..., Any]:
    """The function that Prefect runs: opens recipes, calls the user's function, checks its output."""
    function = task.function
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            with _opened(task, args, kwargs) as arguments:
                return _checked(task, await function(**arguments))

        return _without_a_way_around(run_async, task)

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _opened(task, args, kwargs) as arguments:
            return _checked(task, function(**arguments))

    return _without_a_way_around(run, task)


def _without_a_way_around(run: Callable[..., Any], task: Task[..., Any]) -> Callable[..., Any]:
    """`__wrapped__` would lead past the guard."""
    vars(run).pop("__wrapped__")
    vars(run)["__signature__"] = task.signature
    return run


@contextmanager
def _opened(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    refuse_while_planning(f"task {task.name} ran")
    arguments, recipes = task.bind(*args, **kwargs)
    # A resource that the caller has opened is passed on as it is: it has no type that could be checked.
    for name in arguments.keys() & task.types.keys():
        _check_contract(task, f"parameter {name}", task.types[name], arguments[name])
    leases, name = current_leases(), current_node() or task.name
    with secrets_of_prefect(), _deadline(task), leases.open(recipes, task=name) as resources:
        yield {**arguments, **resources}


@contextmanager
def _deadline(task: Task[..., Any]) -> Iterator[None]:
    """Prefect ends Python code when `timeout_seconds` are over; Spark jobs and ranks are ended here."""
    if task.timeout_seconds is None:
        yield
        return
    ended = threading.Event()

    def end() -> None:
        ended.set()
        current.cancel(task=name)

    current, name = current_leases(), current_node() or task.name
    timer = threading.Timer(task.timeout_seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except BaseException as error:
        # Prefect's own clock may be the first. It would make a TimeoutError the state of the whole flow.
        if ended.is_set() or isinstance(error, TimeoutError | asyncio.CancelledError):
            if not ended.is_set():
                end()
            raise took_too_long(name, task.timeout_seconds, error) from error
        raise
    finally:
        timer.cancel()


def _check_contract(task: Task[..., Any], what: str, annotation: Any, value: Any) -> None:
    """What the plan could not see: the columns of a data set against the contract that a task declares."""
    if reasons := value_breaches(value, annotation):
        raise DataError(f"task {task.name}: {what} breaks its contract", evidence="\n".join(reasons))


def _checked(task: Task[..., Any], output: Any) -> Any:
    _check_contract(task, "its output", task.output_type, output)
    try:
        return adapter(task.output_type).validate_python(output, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise GraphError(
            f"task {task.name} returned what its type does not say",
            wanted=type_name(task.output_type),
            got=f"{type_name(type(output))}: {first['msg']} ({'.'.join(map(str, first['loc'])) or 'whole'})",
        ) from error
