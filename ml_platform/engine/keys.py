"""Keys: what a node is made of, as digests and as readable parts.

A node has two. `own` covers what it is: the code that its task reaches, the packages behind it, its
constant parameters, what its probe saw, the files and variables it declares, and those resources that
shape its output. `inputs` covers what it is given: the identities of the outputs in its arguments.
What cannot be covered makes the node uncacheable, and the plan says so.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import Path, PurePath
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, SecretBytes, SecretStr

from ml_platform.engine.code import Code, code_of
from ml_platform.engine.graph import SKIPPED, Either, Node, Reference
from ml_platform.specs.base import NotIdentity, Spec
from ml_platform.specs.resources import ResourceSpec
from ml_platform.store.digests import file_digest

SHOWN_CHARACTERS = 200
KEY_FORMAT = 1
"""Part of every key: raised when keys are made another way, so that old results are never taken for new."""


class NoIdentityError(TypeError):
    """A value that nothing tells from another one. Says where it stands and of which type it is."""


class Own(Spec):
    """What a node is, whatever it is given."""

    digest: str
    parts: dict[str, str]
    code: str
    uncacheable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def own_key(node: Node, resources: Mapping[str, ResourceSpec], probe: Any, code: Code) -> Own:
    """The own key of a node.

    Args:
        resources: Its recipes, with empty fields filled in by the placement.
        probe: What its probe saw; None when it has none.
        code: What its task reaches; see `task_code`.
    """
    task = node.task
    facts: dict[str, Any] = {}
    uncacheable = list(code.uncacheable)
    values = {f"parameter {name}": (value, name) for name, value in node.arguments.items()}
    if task.probe is not None:
        values["probe"] = probe, "probe"
    for what, (value, where) in values.items():
        try:
            facts[what] = identity(value, where)
        except NoIdentityError as error:
            uncacheable.append(str(error))
    if not task.placement_free:
        facts |= {f"resource {name}": _resource_identity(spec) for name, spec in resources.items()}
    facts |= _files(task.reads)
    facts |= {f"variable {name}": _variable(name) for name in task.environment}
    return Own(
        digest=digest_of([KEY_FORMAT, code.digest, facts]),
        parts=_readable(facts, probe),
        code=code.digest,
        uncacheable=tuple(uncacheable),
        notes=code.notes,
    )


@lru_cache(maxsize=4096)
def task_code(function: Callable[..., Any]) -> Code:
    """What a task's function reaches. Hashed once per process: later edits on disk are not what runs."""
    return code_of(function)


def inputs_key(node: Node, identities: Callable[[Reference | Either], str]) -> tuple[str, dict[str, str]]:
    """Digest and readable parts of what a node is given, each by the place where it stands.

    Args:
        identities: Digest of what a reference stands for.
    """
    parts = {
        f"input {place}": identities(given)
        for parameter, value in node.arguments.items()
        for place, given in _places(value, parameter)
    }
    return digest_of(parts), parts


def _places(value: Any, where: str) -> Iterator[tuple[str, Reference | Either]]:
    """Every reference in an argument, with what a person would write to get at it."""
    if isinstance(value, Reference | Either):
        yield where, value
    elif isinstance(value, list | tuple):
        for at, member in enumerate(value):
            yield from _places(member, f"{where}[{at}]")
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _places(member, f"{where}[{key!r}]")


def value_digest(value: Any) -> str:
    """Digest of what a value is, wherever it lies.

    Raises:
        NoIdentityError: It holds something without an identity.
    """
    return digest_of(identity(value, "output"))


def digest_of(content: Any) -> str:
    """sha256 of JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def identity(value: Any, where: str) -> Any:
    """What a value is, as JSON: equal for equal content, different for anything else.

    Fields marked `Location` or `NotIdentity` are left out. Secrets enter no key.

    Raises:
        NoIdentityError: Says where in the value, and of which type.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value if value == value else {"$": "NaN"}
    if isinstance(value, Reference | Either):
        return {"$": "input"}
    for kinds, said in _KINDS:
        if isinstance(value, kinds):
            return said(value, where)
    if callable(value) and hasattr(value, "__qualname__"):
        return _function(value, where)
    if type(value).__module__.partition(".")[0] == "numpy" and _is_plain_data(value):
        return {
            "$": f"numpy {type(value).__name__} {value.dtype}",
            "shape": list(value.shape),
            "is": hashlib.sha256(value.tobytes()).hexdigest(),
        }
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return _tagged(value, {name: identity(v, f"{where}.{name}") for name, v in fields.items()})
    raise NoIdentityError(f"{where}: a {type(value).__module__}.{type(value).__qualname__} has no identity")


def _is_plain_data(array: Any) -> bool:
    """Whether the bytes of a numpy value are its content: those of objects are places in memory."""
    return hasattr(array, "tobytes") and not array.dtype.hasobject


def _tagged(value: Any, content: Any) -> dict[str, Any]:
    """Two types with equal fields are two things. The module is left out: a class may be moved."""
    return {"$": type(value).__qualname__, "is": content}


def _model(value: BaseModel, where: str) -> Any:
    names = _identity_fields(type(value))
    fields = {name: identity(getattr(value, name), f"{where}.{name}") for name in names}
    fields.update({name: identity(v, f"{where}.{name}") for name, v in (value.model_extra or {}).items()})
    return _tagged(value, fields)


@lru_cache(maxsize=1024)
def _identity_fields(model: type[BaseModel]) -> tuple[str, ...]:
    fields = model.model_fields.items()
    return tuple(name for name, field in fields if not _is_marked(field.annotation, field.metadata))


def _is_marked(annotation: Any, marks: Iterable[Any] = ()) -> bool:
    """Whether all in a field is `NotIdentity`: `Location`, `Location | None`, `list[Location]`."""
    if any(isinstance(mark, NotIdentity) for mark in marks):
        return True
    members = [member for member in get_args(annotation) if member not in (type(None), ...)]
    if get_origin(annotation) is Annotated:
        return _is_marked(members[0], members[1:])
    return get_origin(annotation) in _HOLDERS and bool(members) and all(map(_is_marked, members))


_HOLDERS = (Union, UnionType, list, tuple)


def _mapping(value: Mapping[Any, Any], where: str) -> Any:
    if all(isinstance(key, str) for key in value):
        return {"$": "dict", "is": {key: identity(v, f"{where}.{key}") for key, v in value.items()}}
    pairs = [[identity(key, where), identity(v, f"{where}.{key}")] for key, v in value.items()]
    return {"$": "pairs", "is": sorted(pairs, key=json.dumps)}


def _sequence(value: Any, where: str) -> Any:
    return [identity(member, f"{where}[{at}]") for at, member in enumerate(value)]


def _set(value: Any, where: str) -> Any:
    return _tagged(value, sorted((identity(member, where) for member in value), key=json.dumps))


def _function(value: Any, where: str) -> Any:
    code = task_code(value)
    if code.uncacheable:
        raise NoIdentityError(f"{where}: {code.uncacheable[0]}")
    return {"$": "code", "is": code.digest}


_KINDS: tuple[tuple[Any, Callable[[Any, str], Any]], ...] = (
    ((SecretStr, SecretBytes), lambda value, where: {"$": "secret"}),
    (BaseModel, _model),
    (Enum, lambda value, where: _tagged(value, value.name)),
    (list, _sequence),
    ((tuple, range), lambda value, where: _tagged(value, _sequence(value, where))),
    (dict, _mapping),
    ((set, frozenset), _set),
    ((PurePath, UUID, Decimal), lambda value, where: _tagged(value, str(value))),
    ((dt.datetime, dt.date, dt.time), lambda value, where: _tagged(value, value.isoformat())),
    (dt.timedelta, lambda value, where: _tagged(value, [value.days, value.seconds, value.microseconds])),
    ((bytes, bytearray), lambda value, where: {"$": "bytes", "is": hashlib.sha256(value).hexdigest()}),
    ((int, float), lambda value, where: _tagged(value, repr(value))),
    (str, lambda value, where: _tagged(value, str(value))),
    (type(SKIPPED), lambda value, where: {"$": "skipped"}),
)
"""How values of these types are told apart; the first that fits counts."""


def _resource_identity(spec: ResourceSpec) -> Any:
    """Those fields of a recipe that shape what a task computes: ranks and settings, not places or limits."""
    return {name: identity(getattr(spec, name), name) for name in _identity_fields(type(spec))}


def _readable(facts: Mapping[str, Any], probe: Any) -> dict[str, str]:
    """What a key is made of, for people: decisions never look at it."""
    parts: dict[str, str] = {}
    for name, fact in facts.items():
        if name == "probe" and hasattr(probe, "uri"):
            parts[name] = f"{probe.uri} ({digest_of(fact)[:16]})"
        else:
            _flatten(name, fact, parts)
    return parts


def _flatten(name: str, value: Any, into: dict[str, str]) -> None:
    """One line per field of a spec, so that a plan can name what changed."""
    kind, inner = (value["$"], value.get("is")) if isinstance(value, dict) and "$" in value else ("", value)
    if isinstance(inner, dict) and inner:
        if kind not in ("", "dict"):
            into[f"{name} type"] = kind
        for field, member in inner.items():
            _flatten(f"{name}.{field}", member, into)
        return
    text = json.dumps(kind if inner is None and kind else inner, sort_keys=True, ensure_ascii=False)
    into[name] = text if len(text) <= SHOWN_CHARACTERS else f"sha256 {digest_of(value)}"


def _files(patterns: tuple[str, ...]) -> dict[str, str]:
    """Contents of the files that a task declares, by patterns below the working folder; a folder stands
    for all that is in it."""
    found: dict[str, str] = {}
    for pattern in patterns:
        named = list(Path().glob(pattern))
        below = [inside for path in named if path.is_dir() for inside in path.rglob("*")]
        files = {path for path in (*named, *below) if path.is_file()}
        found[f"files {pattern}"] = str(len(files))
        found |= {f"file {path.as_posix()}": file_digest(path) for path in files}
    return found


def _variable(name: str) -> str:
    """A digest: the value may be a secret."""
    value = os.environ.get(name)
    return "unset" if value is None else f"sha256 {hashlib.sha256(value.encode()).hexdigest()}"
