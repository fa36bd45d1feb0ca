"""What crosses between driver and ranks: a function with its arguments, and what it returned.

A function in an importable module travels by name, any other by value (cloudpickle).
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from ml_platform.errors import PlatformError, RankError, SpecError

LIMIT_BYTES = 64 << 20
"""Largest function with arguments."""
RESULT_LIMIT_BYTES = 900 << 20
"""Largest value that a rank returns."""

_FAULTS = (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError, NotImplementedError)


def pack_job(function: Callable[..., object], args: Sequence[object]) -> bytes:
    """Bytes that call `function(rank, *args)` elsewhere.

    Raises:
        SpecError: A part cannot be pickled, or all of them are larger than 64 MiB. It names the part.
    """
    parts = _parts(function, args)
    try:
        payload = _dumps((function, tuple(args)))
    except _FAULTS as error:
        raise _not_picklable(parts, error) from error
    if len(payload) > LIMIT_BYTES:
        raise _too_large(function, parts, len(payload))
    return payload


def unpack_job(payload: bytes) -> tuple[Callable[..., object], tuple[object, ...]]:
    """The function and its arguments.

    Raises:
        RankError: A module that they need cannot be imported here.
    """
    try:
        function, args = pickle.loads(payload)
    except (ImportError, AttributeError) as error:
        raise RankError(
            "the rank cannot import what it was sent",
            got=f"{type(error).__name__}: {error}",
            hint="the function's module must be importable where ranks run, under the same name",
        ) from error
    return function, args


def pack_result(value: object, *, name: str) -> bytes:
    """Bytes of what `name` returned.

    Raises:
        RankError: It cannot be pickled or is too large.
    """
    try:
        payload = _dumps(value)
    except _FAULTS as error:
        raise RankError(
            f"{name} returned a value that cannot be pickled",
            got=f"{type(value).__qualname__}: {error}",
            hint="return plain values: numbers, arrays, bytes, dataclasses",
        ) from error
    if len(payload) > RESULT_LIMIT_BYTES:
        raise RankError(
            f"{name} returned a value that is too large",
            wanted=f"at most {_mib(RESULT_LIMIT_BYTES)}",
            got=_mib(len(payload)),
            hint="write it to a file and return its path",
        )
    return payload


def unpack_result(payload: bytes, *, name: str) -> Any:
    """The value that a rank returned.

    Raises:
        RankError: Its class cannot be imported here.
    """
    try:
        return pickle.loads(payload)
    except (ImportError, AttributeError) as error:
        raise RankError(
            f"what {name} returned cannot be opened here", got=f"{type(error).__name__}: {error}"
        ) from error


def name_of(function: Callable[..., object]) -> str:
    """How people know a function: module.name.

    >>> name_of(pack_job)
    'ml_platform.worker.payload.pack_job'
    """
    module = getattr(function, "__module__", "?")
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _dumps(value: object) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]

    payload: bytes = cloudpickle.dumps(value, protocol=5)
    return payload


def _parts(function: Callable[..., object], args: Sequence[object]) -> list[tuple[str, object]]:
    function = inspect.unwrap(function)
    cells = getattr(function, "__closure__", None) or ()
    names = function.__code__.co_freevars if hasattr(function, "__code__") else ()
    closed = [
        (f"closure variable {name!r}", cell.cell_contents) for name, cell in zip(names, cells, strict=True)
    ]
    given = [(f"argument {number} ({type(arg).__qualname__})", arg) for number, arg in enumerate(args, 1)]
    return [*given, *closed, ("the function itself", function)]


def _size(value: object) -> int | None:
    try:
        return len(_dumps(value))
    except _FAULTS:
        return None


def _not_picklable(parts: list[tuple[str, object]], error: Exception) -> PlatformError:
    culprit = next((name for name, value in parts if _size(value) is None), "the function itself")
    function = parts[-1][1]
    return SpecError(
        f"{name_of(function)} cannot be sent to ranks: {culprit} cannot be pickled",  # type: ignore[arg-type]
        got=f"{type(error).__name__}: {error}",
        hint="pass plain values, and open sessions, files and locks inside the function",
    )


def _too_large(function: Callable[..., object], parts: list[tuple[str, object]], total: int) -> PlatformError:
    name, size = max(((name, _size(value) or 0) for name, value in parts), key=lambda part: part[1])
    return SpecError(
        f"{name_of(function)} is too large to be sent to ranks",
        wanted=f"at most {_mib(LIMIT_BYTES)} with its arguments",
        got=f"{_mib(total)}; the largest part is {name} with {_mib(size)}",
        hint="write large data as a data set and pass its reference",
    )


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.1f} MiB"
