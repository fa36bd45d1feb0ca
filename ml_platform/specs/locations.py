"""Where a value's big data lie: the URIs in fields annotated `Location`, however deep they sit."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Set as AbstractSet
from functools import lru_cache
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin

from pydantic import BaseModel
from typing_extensions import is_typeddict

from ml_platform.errors import SpecError
from ml_platform.specs.base import AtUri

_PLAIN: tuple[type, ...] = (str, bytes, int, float, bool, complex, type(None))


def locations(value: Any) -> tuple[str, ...]:
    """Every URI that stands in a field annotated `Location`, each once; empty ones name no place.

    Looks into pydantic models, dataclasses, named tuples, lists, tuples, sets and mappings. A `Location`
    in the annotation of a container counts too: `Location | None`, `list[Location]`, `dict[str, Location]`.

    Raises:
        SpecError: The annotations of a class cannot be read.
    """
    return tuple(dict.fromkeys(filter(None, _in_value(value))))


def _in_value(value: Any) -> Iterator[str]:
    kind: Any = type(value)
    for name, annotation in _fields(kind):
        yield from _along(annotation, getattr(value, name, None))
    if isinstance(value, BaseModel):
        yield from _in_value(value.model_extra)
    elif isinstance(value, Mapping):
        yield from _in_value(list(value))
        yield from _in_value(list(value.values()))
    elif isinstance(value, (list, tuple, AbstractSet)):
        for item in value:
            yield from _in_value(item)


def _along(annotation: Any, value: Any) -> Iterator[str]:
    """URIs in a value, of which `annotation` says which strings are any."""
    if isinstance(annotation, type) and not is_typeddict(annotation):
        yield from _in_value(value)
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated and isinstance(value, str):
        yield from [value] if any(map(_marks, arguments[1:])) else ()
    elif origin in (Annotated, Required, NotRequired):
        yield from _along(arguments[0], value)
    elif origin in (Union, types.UnionType):
        for arm in arguments:
            yield from _along(arm, value)
    elif pairs := _items(annotation, arguments, value):
        for inner, item in pairs:
            yield from _along(inner, item)
    else:
        yield from _in_value(value)


def _items(annotation: Any, arguments: tuple[Any, ...], value: Any) -> list[tuple[Any, Any]]:
    """What a container holds, each item with its annotation; empty where the annotation says nothing."""
    if isinstance(value, Mapping) and is_typeddict(annotation):
        return [(inner, value.get(name)) for name, inner in _annotations(annotation).items()]
    if isinstance(value, Mapping) and len(arguments) == 2:
        return [pair for item in value.items() for pair in zip(arguments, item, strict=True)]
    if isinstance(value, (list, tuple, AbstractSet)) and arguments:
        return list(zip(_inner(arguments, len(value)), value, strict=False))
    return []


def _inner(arguments: tuple[Any, ...], items: int) -> tuple[Any, ...]:
    """Annotation of each item: of tuple[X, Y] each its own, otherwise the first for all."""
    return arguments if len(arguments) > 1 and ... not in arguments else arguments[:1] * items


def _marks(marker: Any) -> bool:
    return isinstance(marker, AtUri) or marker is AtUri


@lru_cache(maxsize=4096)
def _fields(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Fields of a class that may hold a URI, with annotations."""
    return tuple((name, at) for name, at in _annotations(kind).items() if not _is_plain(at))


def _is_plain(annotation: Any) -> bool:
    """Whether a value of this annotation never holds a URI: text and numbers that nobody marked."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_plain(arguments[0]) and not any(map(_marks, arguments[1:]))
    if origin in (Union, types.UnionType):
        return all(map(_is_plain, arguments))
    return origin is Literal or annotation in _PLAIN


def _annotations(kind: type) -> dict[str, Any]:
    if issubclass(kind, BaseModel):
        return {name: _whole(field) for name, field in kind.model_fields.items()}
    if not (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields") or is_typeddict(kind)):
        return {}
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except (NameError, TypeError) as error:
        raise SpecError(
            f"the annotations of {kind.__qualname__} cannot be read",
            got=error,
            hint="import at run time what its fields are annotated with, not under TYPE_CHECKING",
        ) from error


def _whole(field: Any) -> Any:
    """The annotation as it was written: pydantic takes the outermost `Annotated` apart."""
    markers = tuple(field.metadata)
    return Annotated[(field.annotation, *markers)] if markers else field.annotation
