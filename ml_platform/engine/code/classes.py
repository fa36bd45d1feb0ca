"""Classes of the project: bases, methods, attributes, and what pydantic, dataclasses and enums add."""

from __future__ import annotations

import abc
import dataclasses
import enum
import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from ml_platform.engine.code.walk import Part, Walk

_DERIVED = {
    "_abc_impl", "_is_protocol", "_is_runtime_protocol", "model_fields", "model_computed_fields",
    "model_config", "_member_map_", "_member_names_", "_value2member_map_", "_generate_next_value_",
    "_unhashable_values_", "_member_type_", "_value_repr_", "_use_args_", "_new_member_",
    "_hashable_values_", "_sort_order_", "_flag_mask_", "_singles_mask_", "_all_bits_", "_boundary_",
    "_inverted_", "_field_defaults", "_fields",
    "__module__", "__qualname__", "__dict__", "__weakref__", "__doc__", "__annotations__", "__firstlineno__",
    "__static_attributes__", "__dataclass_fields__", "__dataclass_params__", "__abstractmethods__",
    "__parameters__", "__class_vars__", "__private_attributes__", "__signature__", "__fields__",
    "__extra_items__", "__slotnames__",
}  # fmt: skip
"""Attributes that Python or a library derives from the rest, or that are told apart."""
_FIELD_TEXT = {"title", "description", "examples", "json_schema_extra", "deprecated"}
"""What a pydantic field says to a reader."""


def class_part(cls: type, walk: Walk) -> Part:
    """A class of the project."""
    key = ("class", walk.hold(cls))
    return walk.part(
        key, walk.module_name(cls.__module__), cls.__qualname__, "class", lambda p: _told(cls, p, walk)
    )


def _told(cls: type, part: Part, walk: Walk) -> Iterator[str]:
    kinds = [*cls.__bases__] + ([type(cls)] if type(cls) is not type else [])
    yield ",".join(walk.value(kind, part, part.name) for kind in kinds)
    for name, value in sorted(vars(cls).items(), key=lambda item: item[0]):
        if _counts(cls, name, value):
            yield f"{name}={walk.value(value, part, f'{part.name}.{name}')}"
    yield from _fields(cls, part, walk)
    annotations = vars(cls).get("__annotations__", {})
    yield from walk.annotations(annotations, walk.globals_of(cls.__module__), part)
    yield from _registered(cls, part, walk)


def _counts(cls: type, name: str, value: Any) -> bool:
    if name in _DERIVED or name.startswith("__pydantic"):
        return False
    if isinstance(value, types.FunctionType) and _is_generated(value, cls):
        return False
    if issubclass(cls, enum.Enum) and name in cls.__members__:
        return False
    if isinstance(value, types.GetSetDescriptorType | types.MemberDescriptorType):
        return False
    if type(value).__name__ == "_tuplegetter":
        return False
    return not (issubclass(cls, BaseModel) and name in cls.__private_attributes__)


def _is_generated(function: types.FunctionType, cls: type) -> bool:
    """Whether a library has written this method, from fields that are told apart."""
    inner = inspect.unwrap(function)
    file, module = inner.__code__.co_filename, inner.__globals__.get("__name__")
    if file == "<string>":
        known = dataclasses.is_dataclass(cls) or hasattr(cls, "_field_defaults")
        return known and inner.__name__.startswith("__")
    by = {"dataclasses", "typing", "collections", "attr._make"}
    return file.startswith(("<namedtuple", "<attrs generated")) or module in by


def _fields(cls: type, part: Part, walk: Walk) -> Iterator[str]:
    if issubclass(cls, enum.Enum):
        for member_name, member in cls.__members__.items():
            yield f"{member_name}={walk.value(member.value, part, f'{part.name}.{member_name}')}"
    elif issubclass(cls, BaseModel):
        yield from _model_fields(cls, part, walk)
    elif "__dataclass_fields__" in vars(cls):
        for field in dataclasses.fields(cast("type[DataclassInstance]", cls)):
            default = walk.value(_default(field), part, f"{part.name}.{field.name}")
            metadata = walk.value(field.metadata, part, f"{part.name}.{field.name}")
            flags = field.init, field.repr, field.hash, field.compare, field.kw_only
            yield f"{field.name}={default} {metadata} {flags}"
        yield repr(vars(cls)["__dataclass_params__"])
        if "__pydantic_decorators__" in vars(cls):
            yield from _pydantic(cls, getattr(cls, "__pydantic_config__", {}), part, walk)
    elif issubclass(cls, tuple) and hasattr(cls, "_field_defaults"):
        names, defaults = (getattr(cls, name) for name in ("_fields", "_field_defaults"))
        yield f"{names} {walk.value(defaults, part, part.name)}"


def _default(field: dataclasses.Field[Any]) -> Any:
    given = field.default_factory if field.default is dataclasses.MISSING else field.default
    return "no default" if given is dataclasses.MISSING else [given]


def _model_fields(cls: type[BaseModel], part: Part, walk: Walk) -> Iterator[str]:
    for name, field in cls.model_fields.items():
        yield f"{name}={_field(field, part, walk, f'{part.name}.{name}')}"
    for name, private in sorted(cls.__private_attributes__.items()):
        yield f"{name}={walk.value([private.default, private.default_factory], part, f'{part.name}.{name}')}"
    yield from _pydantic(cls, cls.model_config, part, walk)


def _pydantic(cls: Any, config: Mapping[str, Any], part: Part, walk: Walk) -> Iterator[str]:
    """What pydantic keeps of a model or a dataclass of its own beside the fields."""
    told = {name: value for name, value in sorted(config.items()) if name not in _FIELD_TEXT}
    yield walk.value(told, part, f"{part.name}.model_config")
    decorators = cls.__pydantic_decorators__
    for kind in dataclasses.fields(decorators):
        for name, decorator in getattr(decorators, kind.name).items():
            if kind.name != "build_metadata":
                info = _without_text(decorator.info, (f.name for f in dataclasses.fields(decorator.info)))
                yield f"{kind.name} {name} {walk.value(info, part, f'{part.name}.{name}')}"


def _field(field: FieldInfo, part: Part, walk: Walk, path: str) -> str:
    return walk.value(_without_text(field, FieldInfo.__slots__), part, path)


def _without_text(field: Any, names: Iterable[str]) -> dict[str, Any]:
    told = (name for name in names if not name.startswith("_") and name not in _FIELD_TEXT)
    found = {name: getattr(field, name, None) for name in told}
    return {name: value for name, value in found.items() if value is not None}


def _registered(cls: type, part: Part, walk: Walk) -> Iterator[str]:
    """Classes that were registered with an abstract one."""
    if isinstance(cls, abc.ABCMeta):
        from _abc import _get_dump  # type: ignore[import-not-found, unused-ignore]

        for one in sorted(filter(None, (ref() for ref in _get_dump(cls)[0])), key=lambda c: c.__qualname__):
            yield f"registered {walk.value(one, part, part.name)}"
