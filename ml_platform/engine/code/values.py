"""Values as text: equal for equal values in every process, and refused where there is no value."""

from __future__ import annotations

import collections
import contextvars
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import ipaddress
import logging
import operator
import re
import string
import struct
import sys
import threading
import types
import typing
import uuid
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ml_platform.engine.code import callables
from ml_platform.engine.code.callables import is_importable, module_of, task_function
from ml_platform.engine.code.classes import class_part
from ml_platform.engine.code.origin import origin
from ml_platform.engine.code.project import without_root
from ml_platform.engine.code.scan import sha
from ml_platform.engine.code.source import source_of

if TYPE_CHECKING:
    from ml_platform.engine.code.walk import Part, Walk

Text = Callable[[Any, "Part", str, "Walk"], str]

_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    bytes,
    bytearray,
    range,
    slice,
    type(...),
    type(NotImplemented),
)
_REDUCED = (
    dt.date, dt.time, dt.timedelta, dt.tzinfo, decimal.Decimal, fractions.Fraction,
    uuid.UUID, zoneinfo.ZoneInfo, operator.attrgetter, operator.itemgetter, operator.methodcaller,
    string.Template,
    ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network,
    types.SimpleNamespace, BaseException,
)  # fmt: skip
"""Types of the standard library that say all they are to pickle."""
_FIELD_MODULES = {
    "pydantic.fields", "pydantic.types", "pydantic.functional_validators", "pydantic.functional_serializers",
    "pydantic.aliases", "pydantic._internal._fields", "pydantic_core", "pydantic_core._pydantic_core",
}  # fmt: skip
"""Where pydantic defines what a field is made of. Such an object consists of its attributes."""
_REDUCED_IN = {"pyarrow.lib", "pyspark.sql.types"}
"""Modules of packages whose instances do so too."""


def has_own_part(value: Any) -> bool:
    """Whether a value is known by a name of its own, whatever it is called where it is used."""
    kinds = types.FunctionType, types.BuiltinFunctionType, type, types.ModuleType
    return isinstance(value, kinds) or bool(task_function(value))


def text_of(value: Any, part: Part, path: str, walk: Walk) -> str:
    """A value as text. What the project defines becomes a part; what cannot be told is noted."""
    if id(value) in walk.inside:
        return "itself"
    walk.inside.add(id(value))
    try:
        return _text(value, part, path, walk)
    finally:
        walk.inside.discard(id(value))


def _text(value: Any, part: Part, path: str, walk: Walk) -> str:
    if isinstance(value, str) and type(value) is str:
        target = walk.late.named(value, part)
        return f"{without_root(value, part.module)!r}{target}"
    if type(value) in _PLAIN:
        return f"{type(value).__name__} {value!r}"
    handler = _handler(value.__class__)
    if handler is None:
        return _other(value, part, path, walk)
    return f"{handler(value, part, path, walk)}{_of_a_subclass(value, part, path, walk)}"


@functools.lru_cache(maxsize=4096)
def _handler(kind: type) -> Text | None:
    return next((handler for kinds, handler in _HANDLERS if issubclass(kind, kinds)), None)


def _of_a_subclass(value: Any, part: Part, path: str, walk: Walk) -> str:
    """What a class of the project adds to a type that is known: methods, and what an instance holds."""
    kind = type(value)
    if isinstance(value, type | enum.Enum | BaseModel) or origin(kind.__module__) != "project":
        return ""
    derived = ("func", "attrname", "lock", "__doc__") if isinstance(value, functools.cached_property) else ()
    held = {name: member for name, member in getattr(value, "__dict__", {}).items() if name not in derived}
    return f" of {text_of(kind, part, path, walk)}{_state(held, part, path, walk)}"


def _members(values: Iterable[Any], part: Part, path: str, walk: Walk) -> str:
    return ",".join(text_of(value, part, f"{path}[{i}]", walk) for i, value in enumerate(values))


def _sequence(value: Any, part: Part, path: str, walk: Walk) -> str:
    kind = text_of(type(value), part, path, walk)
    at_most = f" of {value.maxlen}" if isinstance(value, collections.deque) else ""
    return f"{kind}[{_members(value, part, path, walk)}]{at_most}{_own_state(value, part, path, walk)}"


def _chain(value: collections.ChainMap[Any, Any], part: Part, path: str, walk: Walk) -> str:
    return f"chain {text_of(value.maps, part, path, walk)}"


def _set(value: Any, part: Part, path: str, walk: Walk) -> str:
    members = sorted(value, key=lambda member: (type(member).__qualname__, _sortable(member)))
    return f"{type(value).__name__}{{{_members(members, part, path, walk)}}}"


def _sortable(member: Any) -> str:
    if isinstance(member, types.FunctionType | type):
        return f"{member.__qualname__} {member.__module__}"
    return repr(sorted(map(_sortable, member))) if isinstance(member, frozenset) else repr(member)


def _mapping(value: Any, part: Part, path: str, walk: Walk) -> str:
    kind = "dict" if isinstance(value, types.MappingProxyType) else text_of(type(value), part, path, walk)
    factory = getattr(value, "default_factory", None)
    pairs = [
        f"{text_of(key, part, path, walk)}:{text_of(member, part, f'{path}[{key!r}]', walk)}"
        for key, member in value.items()
    ]
    made_by = f"|{text_of(factory, part, path, walk)}" if factory else ""
    return f"{kind}{{{','.join(pairs)}{made_by}}}{_own_state(value, part, path, walk)}"


def _own_state(value: Any, part: Part, path: str, walk: Walk) -> str:
    own = (
        getattr(value, "__dict__", None)
        if type(value).__module__ not in {"builtins", "collections"}
        else None
    )
    return _state(own, part, path, walk) if own else ""


def _state(state: Mapping[str, Any], part: Part, path: str, walk: Walk) -> str:
    pairs = (f"{name}={text_of(state[name], part, f'{path}.{name}', walk)}" for name in sorted(state))
    return f"({','.join(pairs)})"


def _enum(value: enum.Enum, part: Part, path: str, walk: Walk) -> str:
    return f"{text_of(type(value), part, path, walk)}.{value.name or value.value!r}"


def _path(value: PurePath, part: Part, path: str, walk: Walk) -> str:
    return f"path {without_root(value.as_posix(), part.module)!r}"


def _pattern(value: re.Pattern[Any], part: Part, path: str, walk: Walk) -> str:
    return f"pattern {value.pattern!r} {value.flags}"


def _struct(value: struct.Struct, part: Part, path: str, walk: Walk) -> str:
    return f"struct {value.format!r}"


def _nothing(value: Any, part: Part, path: str, walk: Walk) -> str:
    return type(value).__name__


def _context_variable(value: contextvars.ContextVar[Any], part: Part, path: str, walk: Walk) -> str:
    walk.note(part, "reads a context variable, which no key sees")
    default = contextvars.Context().run(value.get, None)
    return f"context {value.name} {text_of(default, part, path, walk)}"


def _class(value: type, part: Part, path: str, walk: Walk) -> str:
    module = module_of(value) or "builtins"
    is_made = module == "types" and not hasattr(types, value.__qualname__)  # by `make_dataclass`, say
    if is_made or origin(module) == "project":
        return part.use(class_part(value, walk))
    return walk.foreign(module, (value.__qualname__,), part)


def _module(value: types.ModuleType, part: Part, path: str, walk: Walk) -> str:
    if origin(value.__name__) == "project":
        return part.use(walk.late.module(value.__name__, part))
    return walk.foreign(value.__name__, (), part)


def _alias(value: Any, part: Part, path: str, walk: Walk) -> str:
    arguments, extras = typing.get_args(value), getattr(value, "__metadata__", ())
    origin_ = typing.get_origin(value)
    if extras or origin_ is typing.Literal:
        told = _members(arguments, part, path, walk)
    else:
        told = ",".join(_argument(one, part, path, walk) for one in arguments)
    return f"{text_of(origin_, part, path, walk)}[{told}{_members(extras, part, path, walk)}]"


def _argument(value: Any, part: Part, path: str, walk: Walk) -> str:
    """A type within a type; a quoted one counts as what is in the quotes."""
    written = getattr(value, "__forward_arg__", value)
    if not isinstance(written, str):
        return text_of(value, part, path, walk)
    return f"'{','.join(walk.written(written, part, walk.globals_of(part.module)))}'"


def _type_variable(value: Any, part: Part, path: str, walk: Walk) -> str:
    bounds = [getattr(value, "__bound__", None), *getattr(value, "__constraints__", ())]
    told = ",".join(_argument(one, part, path, walk) for one in bounds)
    return f"type variable {value.__name__} {told}"


def _model(value: BaseModel, part: Part, path: str, walk: Walk) -> str:
    state = {**vars(value), **(value.__pydantic_extra__ or {}), **(value.__pydantic_private__ or {})}
    return f"{text_of(type(value), part, path, walk)}{_state(state, part, path, walk)}"


def _reduced(value: Any, part: Part, path: str, walk: Walk) -> str:
    reduced = value.__reduce_ex__(4)
    rest = (
        [list(r) if hasattr(r, "__next__") else r for r in reduced[1:]] if isinstance(reduced, tuple) else []
    )
    first = reduced[0] if isinstance(reduced, tuple) else reduced
    return f"{text_of(type(value), part, path, walk)} {text_of([first, *rest], part, path, walk)}"


def _lock(value: Any, part: Part, path: str, walk: Walk) -> str:
    """One of the platform keeps its threads apart; what a user's guards is the user's to say."""
    if part.module.partition(".")[0] == "ml_platform":
        return type(value).__name__
    return _other(value, part, path, walk)


def _other(value: Any, part: Part, path: str, walk: Walk) -> str:
    kind = type(value)
    if typing.get_origin(value) is not None:
        return _alias(value, part, path, walk)
    if kind.__module__ == "typing":
        return (
            repr(value)
            if not hasattr(value, "__supertype__")
            else text_of(value.__supertype__, part, path, walk)
        )
    function = task_function(value)
    if function is not None:
        return text_of(function, part, path, walk)
    if kind is object:
        return "object"
    if is_importable(value):
        return walk.foreign(module_of(value), (value.__name__,), part)
    if kind.__module__.partition(".")[0] == "numpy" and not kind.__module__.startswith("numpy.random"):
        return _array(value, part, path, walk)
    if kind.__name__ == "ValidateCallWrapper":
        return f"validated {text_of(value.function, part, path, walk)} {value.validate_return}"
    if kind.__module__ in _REDUCED_IN:
        return _reduced(value, part, path, walk)
    if origin(kind.__module__) == "project" or dataclasses.is_dataclass(kind) or _is_field_info(kind):
        return _instance(value, part, path, walk)
    return _imported_instance(value, part, path, walk) or walk.refuse(
        path, f"a {kind.__module__}.{kind.__qualname__}"
    )


def _is_field_info(kind: type) -> bool:
    return kind.__module__ in _FIELD_MODULES or kind.__module__.partition(".")[0] in {
        "annotated_types",
        "attr",
    }


def _instance(value: Any, part: Part, path: str, walk: Walk) -> str:
    """An object of the project, or one that consists of its fields: its class, and what it holds."""
    slots = {
        name
        for base in type(value).__mro__
        for name in _slots(base)
        if name not in {"__dict__", "__weakref__"} and hasattr(value, name)
    }
    state = {name: getattr(value, name) for name in slots} | dict(getattr(value, "__dict__", {}))
    if isinstance(value, functools.partial | collections.abc.Iterator):
        return walk.refuse(path, f"a {type(value).__qualname__}")
    plain = [kind for kind in (str, int, float, complex, bytes) if isinstance(value, kind)]
    told = text_of(plain[0](value), part, path, walk) if plain else ""
    return f"{text_of(type(value), part, path, walk)}{told}{_state(state, part, path, walk)}"


def _slots(base: type) -> Iterable[str]:
    slots = base.__dict__.get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return [
        f"_{base.__name__.lstrip('_')}{n}" if n.startswith("__") and not n.endswith("__") else n
        for n in names
    ]


def _array(value: Any, part: Part, path: str, walk: Walk) -> str:
    if type(value).__name__ == "MaskedArray":
        return f"masked {text_of([value.data, value.mask, value.fill_value], part, path, walk)}"
    if hasattr(value, "tobytes"):
        if value.dtype.hasobject:
            return f"array {value.shape} {text_of(value.tolist(), part, path, walk)}"
        return f"array {value.dtype.str} {value.dtype!r} {value.shape} {sha([value.tobytes().hex()])}"
    if type(value).__name__.endswith("DType") or type(value).__name__ == "dtype":
        return f"dtype {value!r}"
    return walk.refuse(path, f"a {type(value).__module__}.{type(value).__qualname__}")


def _imported_instance(value: Any, part: Part, path: str, walk: Walk) -> str:
    """An object that the project imports by name: the version of its package says what it is."""
    name = part.qualname if part.kind == "global" and part.module in sys.modules else ""
    bindings = source_of(part.module).bindings.get(name) if name and path == part.name else None
    binding = bindings[-1] if bindings else None
    if binding is None or origin(binding.module) == "project" or type(value).__name__ in {"lock", "RLock"}:
        return ""
    return walk.foreign(binding.module, (binding.name,), part)


_HANDLERS: list[tuple[Any, Text]] = [
    (enum.Enum, _enum),
    (type, _class),
    (types.ModuleType, _module),
    (types.FunctionType, callables.function_text),
    (types.MethodType, callables.method_text),
    ((types.BuiltinFunctionType, types.MethodWrapperType), callables.builtin_text),
    (
        (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType),
        callables.descriptor_text,
    ),
    ((functools.partial, functools.partialmethod), callables.partial_text),
    (type(functools.lru_cache(lambda: None)), callables.cached_text),
    ((staticmethod, classmethod), callables.static_text),
    (property, callables.property_text),
    (functools.singledispatchmethod, callables.dispatched_method_text),
    (functools.cached_property, callables.cached_property_text),
    ((typing.TypeVar, typing.ParamSpec), _type_variable),
    (typing.ForwardRef, _argument),
    (dataclasses.InitVar, lambda value, *where: f"InitVar {_argument(value.type, *where)}"),
    (BaseModel, _model),
    (PurePath, _path),
    (re.Pattern, _pattern),
    ((type(threading.Lock()), type(threading.RLock())), _lock),
    (struct.Struct, _struct),
    ((logging.Logger, logging.LoggerAdapter), _nothing),
    (contextvars.ContextVar, _context_variable),
    (_REDUCED, _reduced),
    (collections.ChainMap, _chain),
    ((dict, types.MappingProxyType), _mapping),
    ((set, frozenset), _set),
    ((list, tuple, collections.deque), _sequence),
]
