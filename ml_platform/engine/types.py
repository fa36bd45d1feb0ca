"""May a value of one type stand where another is wanted? Decided on annotations, before anything runs."""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Never, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from ml_platform.specs.contracts import Contract, missing

_UNIONS = (Union, types.UnionType)


def fits(got: Any, wanted: Any) -> bool:
    """Whether every value of type `got` is a value of type `wanted`.

    Containers are compared by their arguments; an integer serves where a float is wanted; a bare
    container says nothing about its content and is refused where content is named.

    >>> fits(list[bool], list[int]), fits(int | None, int), fits(Literal["a"], str)
    (True, False, True)
    """
    got, wanted = _plain(got), _plain(wanted)
    if wanted in (Any, object) or got == wanted or got is Never:
        return True
    if get_origin(got) in _UNIONS:
        return all(fits(member, wanted) for member in get_args(got))
    if get_origin(wanted) in _UNIONS:
        return any(fits(got, member) for member in get_args(wanted))
    if get_origin(wanted) is Literal:
        return get_origin(got) is Literal and _typed(got) <= _typed(wanted)
    if get_origin(got) is Literal:
        return all(fits(type(value), wanted) for value in get_args(got))
    if got is Any:
        return False
    return _class_fits(getattr(got, "__supertype__", got), wanted)


def _typed(literal: Any) -> set[tuple[type, Any]]:
    """The values of a literal type: 1 is not True."""
    return {(type(value), value) for value in get_args(literal)}


def _plain(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if isinstance(annotation, TypeVar):
        return (
            union(annotation.__constraints__)
            if annotation.__constraints__
            else annotation.__bound__ or object
        )
    return type(None) if annotation is None else annotation


def _class_fits(got: Any, wanted: Any) -> bool:
    got_class, wanted_class = get_origin(got) or got, get_origin(wanted) or wanted
    if not isinstance(got_class, type) or not isinstance(wanted_class, type):
        return False
    if (got_class, wanted_class) == (int, float):
        return True
    if _is_typed_dict(wanted_class):
        return _is_typed_dict(got_class) and _items_fit(got_class, wanted_class)
    if getattr(wanted_class, "_is_protocol", False):
        return all(hasattr(got_class, name) or name in _hints(got_class) for name in _members(wanted_class))
    return issubclass(got_class, wanted_class) and _arguments_fit(got, wanted)


def _is_typed_dict(kind: type) -> bool:
    return issubclass(type(kind), type) and hasattr(kind, "__required_keys__")


def _items_fit(got: type, wanted: type) -> bool:
    have, required = get_type_hints(got), got.__required_keys__  # type: ignore[attr-defined]
    needed = wanted.__required_keys__  # type: ignore[attr-defined]
    fitting = all(fits(have.get(name, Any), hint) for name, hint in get_type_hints(wanted).items())
    return fitting and needed <= required


def _hints(kind: type) -> dict[str, Any]:
    return {
        name: hint for base in kind.__mro__ for name, hint in vars(base).get("__annotations__", {}).items()
    }


def _members(protocol: type) -> set[str]:
    """Names that a protocol asks for."""
    bases = [
        base for base in protocol.__mro__ if vars(base).get("_is_protocol") and base.__module__ != "typing"
    ]
    written = {name for base in bases or [protocol] for name in (*vars(base), *_hints(base))}
    methods = {name for name in written if isinstance(getattr(protocol, name, None), types.FunctionType)}
    return {name for name in written if not name.startswith("_")} | (
        methods - {"__init__", "__subclasshook__"}
    )


def _arguments_as(got: Any, owner: Any) -> tuple[Any, ...]:
    """Arguments of a type, seen as the class `owner` that it derives from. Empty: it says none."""
    kind, arguments = get_origin(got) or got, get_args(got)
    if _is_typed_dict(kind):
        arguments = str, Any
    if issubclass(kind, tuple):
        arguments = arguments or item_types(kind) or ()
        members = [argument for argument in arguments if argument is not Ellipsis]
        return arguments if issubclass(owner, tuple) or not members else (union(members),)
    if arguments or kind in _ITEMS:
        return arguments or (_ITEMS[kind],)
    for base in vars(kind).get("__orig_bases__", ()):
        of = get_origin(base)
        if isinstance(of, type) and issubclass(of, owner):
            return _arguments_as(base, owner)
    return ()


_ITEMS: dict[Any, Any] = {str: str, bytes: int, bytearray: int, range: int}
"""What is in those that need not say it."""


def _arguments_fit(got: Any, wanted: Any) -> bool:
    wanted_arguments = get_args(wanted)
    if not wanted_arguments:
        return True
    got_arguments = _arguments_as(got, get_origin(wanted))
    if len(wanted_arguments) == 1 and issubclass(get_origin(got) or got, Mapping):
        got_arguments = got_arguments[:1]
    if not got_arguments:
        return False
    if get_origin(wanted) is tuple and wanted_arguments[-1] is Ellipsis:
        members = [argument for argument in got_arguments if argument is not Ellipsis]
        return all(fits(member, wanted_arguments[0]) for member in members)
    if Ellipsis in got_arguments:
        return len(wanted_arguments) == 1 and fits(got_arguments[0], wanted_arguments[0])
    if len(got_arguments) != len(wanted_arguments):
        return False
    return all(fits(a, b) for a, b in zip(got_arguments, wanted_arguments, strict=True))


def type_name(annotation: Any) -> str:
    """How a person writes the type.

    >>> type_name(list[int | None])
    'list[int | None]'
    """
    annotation = _plain(annotation)
    if annotation is type(None):
        return "None"
    if get_origin(annotation) in _UNIONS:
        return " | ".join(type_name(member) for member in get_args(annotation))
    if get_origin(annotation) is Literal:
        return f"Literal[{', '.join(map(repr, get_args(annotation)))}]"
    arguments = ", ".join("..." if a is Ellipsis else type_name(a) for a in get_args(annotation))
    name = getattr(get_origin(annotation) or annotation, "__name__", str(annotation))
    return f"{name}[{arguments}]" if arguments else name


def union(members: Sequence[Any]) -> Any:
    """The type of a value that has one of these types. Of none of them: there is no such value."""
    return functools.reduce(operator.or_, members) if members else Never


def optional(annotation: Any) -> Any:
    """The type of a value that may also be None."""
    return union([type(None) if annotation is None else annotation, type(None)])


def item_types(annotation: Any) -> tuple[Any, ...] | None:
    """Types of the items of a tuple of fixed length or a named tuple; None for anything else."""
    plain = _plain(annotation)
    if isinstance(plain, type) and hasattr(plain, "_fields"):
        return tuple(_fields(plain).values())
    arguments = get_args(plain)
    if get_origin(plain) is not tuple or Ellipsis in arguments:
        return None
    return arguments


def list_item(annotation: Any) -> Any:
    """Type of the items of a list, or of a tuple of any length; None for anything else."""
    plain = _plain(annotation)
    arguments = get_args(plain)
    if get_origin(plain) is list and arguments:
        return arguments[0]
    return arguments[0] if get_origin(plain) is tuple and Ellipsis in arguments else None


def list_of(annotation: Any) -> Any:
    """The type of a list of such values."""
    return list[annotation]


def contract_of(annotation: Any) -> Contract | None:
    """The contract in `Annotated[Dataset, Contract(…)]`."""
    if get_origin(annotation) is not Annotated:
        return None
    return next((extra for extra in annotation.__metadata__ if isinstance(extra, Contract)), None)


def breaches(got: Any, wanted: Any) -> list[str]:
    """Why data sets of type `got` break the contracts in `wanted`, also in unions and lists.

    A side without a contract says nothing.
    """
    if not _names_a_contract(wanted):
        return []
    found: list[str] = []
    for one in _arms(got):
        choices = [_arm_breaches(one, other) for other in _arms(wanted) if fits(one, other)]
        fewest: list[str] = min(choices, key=len, default=[])
        found += fewest
    return found


def value_breaches(value: Any, wanted: Any) -> list[str]:
    """Why the data sets in a value break the contracts in `wanted`."""
    return breaches(type_of(value), wanted) if _names_a_contract(wanted) else []


def type_of(value: Any) -> Any:
    """The type of a value, with the contracts of the data sets in it."""
    if isinstance(value, list):
        return list[union([type_of(member) for member in value])]  # type: ignore[misc]
    contract = getattr(value, "contract", None)
    return Annotated[type(value), contract] if isinstance(contract, Contract) else type(value)


def _arms(annotation: Any) -> list[Any]:
    contract, plain = contract_of(annotation), _plain(annotation)
    if get_origin(plain) not in _UNIONS:
        return [annotation]
    arms = get_args(plain)
    return list(arms) if contract is None else [Annotated[arm, contract] for arm in arms]


def _arm_breaches(got: Any, wanted: Any) -> list[str]:
    needed, produced = contract_of(wanted), contract_of(got)
    if needed is not None and produced is not None:
        return missing(needed, produced)
    inner, item = list_item(got), list_item(wanted)
    return [] if inner is None or item is None else breaches(inner, item)


def _names_a_contract(annotation: Any) -> bool:
    return contract_of(annotation) is not None or any(map(_names_a_contract, get_args(annotation)))


def field_type(annotation: Any, name: str) -> Any:
    """Type of a field of a pydantic model, dataclass or named tuple.

    Raises:
        AttributeError: The type has no such field; says which fields there are.
    """
    owner = _plain(annotation)
    fields = _fields(owner)
    if name not in fields:
        known = f"fields: {', '.join(fields)}" if fields else "it has no declared fields"
        raise AttributeError(f"{type_name(owner)} has no field {name!r}; {known}")
    return fields[name]


def _fields(owner: Any) -> dict[str, Any]:
    model_fields = getattr(owner, "model_fields", None)
    if isinstance(model_fields, dict):
        return {name: _whole(field) for name, field in model_fields.items()}
    if isinstance(owner, type) and (hasattr(owner, "__dataclass_fields__") or hasattr(owner, "_fields")):
        return get_type_hints(owner, include_extras=True)
    return {}


def _whole(field: FieldInfo) -> Any:
    """The annotation as it was written: pydantic takes the outermost `Annotated` apart."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
