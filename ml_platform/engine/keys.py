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
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from enum import Enum
from functools import cached_property, lru_cache
from pathlib import Path, PurePath
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, SecretBytes, SecretStr

from ml_platform.engine.code import Code, code_of
from ml_platform.engine.code.origin import origin
from ml_platform.engine.code.outside import ENVIRONMENT
from ml_platform.engine.code.walk import Walk
from ml_platform.engine.graph import SKIPPED, Either, Node, Reference
from ml_platform.specs.base import NotIdentity, Spec
from ml_platform.specs.resources import ResourceSpec
from ml_platform.store.digests import file_digest

SHOWN_CHARACTERS = 200
KEY_FORMAT = 2
"""Part of every key: raised when keys are made another way, so that old results are never taken for new."""


# Made once: there are as many texts as nodes have parameters.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_READABLE = json.JSONEncoder(sort_keys=True, ensure_ascii=False)
_INPUT = _READABLE.encode({"$": "input"})


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
            with _whole_if(where in task.whole):
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
        notes=_not_declared(node, code.notes),
    )


def _not_declared(node: Node, notes: tuple[str, ...]) -> tuple[str, ...]:
    """Notes without those that ask for what the task has declared."""
    return tuple(note for note in notes if not (node.task.environment and note.endswith(ENVIRONMENT)))


class _Declared:
    """Codes that were asked for, and the walk that found them."""

    def __init__(self) -> None:
        self._walk = Walk()
        self.marks: dict[type, dict[str, str]] = {}
        self._codes: dict[Any, Code] = {}
        self._lock = threading.Lock()

    def code(self, function: Any) -> Code:
        found = self._codes.get(function)
        if found is None:
            with self._lock:
                found = self._codes[function] = self._codes.get(function) or self._read(function)
        return found

    def _read(self, function: Any) -> Code:
        try:
            return code_of(function, self._walk)
        except BaseException:
            self._walk = Walk()  # it holds parts that were not read to their end
            raise


_declared: ContextVar[_Declared | None] = ContextVar("declared", default=None)


@contextmanager
def as_declared() -> Iterator[None]:
    """Inside, code is what it was when it was first asked for, whatever tasks do to globals meanwhile.

    A block within another goes on with what that has found.
    """
    token = _declared.set(_declared.get() or _Declared())
    try:
        yield
    finally:
        _declared.reset(token)


def task_code(function: Any) -> Code:
    """What a task's function, or a class, reaches."""
    known = _declared.get()
    return code_of(function) if known is None else known.code(function)


def inputs_key(
    node: Node, identities: Callable[[Reference | Either, bool], str]
) -> tuple[str, dict[str, str]]:
    """Digest and readable parts of what a node is given, each by the place where it stands.

    Args:
        identities: Digest of what a reference stands for; of the whole of it, or of what it is.
    """
    parts = {
        f"input {place}": identities(given, parameter in node.task.whole)
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


def value_digest(value: Any, *, whole: bool = False) -> str:
    """Digest of what a value is, wherever it lies.

    Args:
        whole: Of all that it says, where it lies too.
    Raises:
        NoIdentityError: It holds something without an identity.
    """
    with _whole_if(whole):
        return digest_of(identity(value, "output"))


_whole: ContextVar[bool] = ContextVar("whole", default=False)


@contextmanager
def _whole_if(whole: bool) -> Iterator[None]:
    """Inside, fields marked `Location` or `NotIdentity` count as well."""
    token = _whole.set(whole)
    try:
        yield
    finally:
        _whole.reset(token)


def digest_of(content: Any) -> str:
    """sha256 of JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(_CANONICAL.encode(content).encode()).hexdigest()


def identity(value: Any, where: str) -> Any:
    """What a value is, as JSON: equal for equal content, different for anything else.

    Fields marked `Location` or `NotIdentity` are left out, unless the whole counts. Secrets enter no key.

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
    if _is_plain_data(value):
        return {
            "$": f"numpy {type(value).__name__} {value.dtype}",
            "shape": list(value.shape),
            "is": hashlib.sha256(value.tobytes()).hexdigest(),
        }
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        fields = {name: identity(getattr(value, name), f"{where}.{name}") for name in names}
        return _tagged(value, fields, where, _held(value, names))
    raise _no_identity(value, where)


def _no_identity(value: Any, where: str) -> NoIdentityError:
    kind = type(value)
    return NoIdentityError(f"{where}: a {kind.__module__}.{kind.__qualname__} has no identity")


def _is_plain_data(value: Any) -> bool:
    """Whether a value is of numpy, and its bytes are its content: those of objects are places in memory."""
    if type(value).__module__ != "numpy" or not hasattr(value, "tobytes"):
        return False
    return type(value).__name__ in ("ndarray", value.dtype.type.__name__) and not value.dtype.hasobject


def _tagged(value: Any, content: Any, where: str, held: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Two types with equal fields are two things, and so are two versions of the methods of one.

    The module is left out: a class may be moved.

    Args:
        held: What it holds besides its content.
    """
    found = {**_mark(type(value), where), "is": content}
    if held:
        found["holds"] = {name: identity(member, f"{where}.{name}") for name, member in held.items()}
    return found


def _mark(kind: type, where: str) -> dict[str, str]:
    """What tells a type from others, made once where code is as it was declared."""
    known = _declared.get()
    if known is not None and kind in known.marks:
        return known.marks[kind]
    found = {"$": kind.__qualname__}
    if origin(kind.__module__) != "stdlib":
        found["code"] = _code_digest(kind, where)
    if known is not None:
        known.marks[kind] = found
    return found


def _held(value: Any, told: Iterable[str] = ()) -> dict[str, Any]:
    """What an instance holds besides what is told already and what it can compute again."""
    known = {*told, *(name for name in vars(value) if _is_computed(type(value), name))}
    return {name: member for name, member in vars(value).items() if name not in known}


def _is_computed(kind: type, name: str) -> bool:
    return isinstance(getattr(kind, name, None), cached_property)


def _model(value: BaseModel, where: str) -> Any:
    held, kind = vars(value), type(value)
    names = tuple(kind.model_fields) if _whole.get() else _identity_fields(kind)
    fields = {name: _field(held[name], where, name) for name in names}
    fields.update({name: identity(v, f"{where}.{name}") for name, v in (value.model_extra or {}).items()})
    return _tagged(value, fields, where, value.__pydantic_private__)


def _field(value: Any, where: str, name: str) -> Any:
    # Most fields are plain, and there are many: to say where each stands takes longer than all the rest.
    return value if value is None or type(value) in (str, bool, int) else identity(value, f"{where}.{name}")


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


def _plain(said: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """As `said` for the type of Python's own; one that is made from it may hold more and do otherwise."""

    def identified(value: Any, where: str) -> Any:
        content = said(value, where)
        if type(value) in (list, dict):
            return content
        return _tagged(value, content, where, _held(value) if hasattr(value, "__dict__") else None)

    return identified


def _mapping(value: Mapping[Any, Any], where: str) -> Any:
    if isinstance(value, OrderedDict):
        return [[identity(key, where), identity(v, f"{where}.{key}")] for key, v in value.items()]
    if isinstance(value, defaultdict):
        return [identity(value.default_factory, where), identity(dict(value), where)]
    if all(isinstance(key, str) for key in value):
        return {"$": "dict", "is": {key: identity(v, f"{where}.{key}") for key, v in value.items()}}
    pairs = [[identity(key, where), identity(v, f"{where}.{key}")] for key, v in value.items()]
    return {"$": "pairs", "is": sorted(pairs, key=json.dumps)}


def _sequence(value: Any, where: str) -> Any:
    return [identity(member, f"{where}[{at}]") for at, member in enumerate(value)]


def _set(value: Any, where: str) -> Any:
    return sorted((identity(member, where) for member in value), key=json.dumps)


def _moment(value: dt.datetime | dt.time, where: str) -> Any:
    """A zone has rules: two with equal offsets are two things."""
    zone = value.tzinfo
    offset = None if zone is None else zone.utcoffset(None)
    if zone is not None and offset is None and not getattr(zone, "key", None):
        raise _no_identity(zone, where)
    return [value.isoformat(), value.fold, getattr(zone, "key", None) if offset is None else str(offset)]


def _function(value: Any, where: str) -> Any:
    return {"$": "code", "is": _code_digest(value, where)}


def _code_digest(value: Any, where: str) -> str:
    code = task_code(value)
    if code.uncacheable:
        raise NoIdentityError(f"{where}: {code.uncacheable[0]}")
    return code.digest


_KINDS: tuple[tuple[Any, Callable[[Any, str], Any]], ...] = (
    ((SecretStr, SecretBytes), lambda value, where: {"$": "secret"}),
    (BaseModel, _model),
    (Enum, lambda value, where: _tagged(value, value.name or repr(value.value), where)),
    ((list, tuple), _plain(_sequence)),
    (range, lambda value, where: _tagged(value, [value.start, value.stop, value.step], where)),
    (dict, _plain(_mapping)),
    ((set, frozenset), _plain(_set)),
    ((PurePath, UUID, Decimal), lambda value, where: _tagged(value, str(value), where)),
    ((dt.datetime, dt.time), lambda value, where: _tagged(value, _moment(value, where), where)),
    (dt.date, lambda value, where: _tagged(value, value.isoformat(), where)),
    (dt.timedelta, _plain(lambda value, where: [value.days, value.seconds, value.microseconds])),
    ((bytes, bytearray), _plain(lambda value, where: hashlib.sha256(value).hexdigest())),
    (int, _plain(lambda value, where: int.__repr__(value))),
    (float, _plain(lambda value, where: float.__repr__(value))),
    (str, _plain(lambda value, where: str.__str__(value))),
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
    if "code" in (value if kind else ()):
        into[f"{name} code"] = value["code"]
    if isinstance(inner, dict) and inner:
        if kind not in ("", "dict"):
            into[f"{name} type"] = kind
        for field, member in inner.items():
            _flatten(f"{name}.{field}", member, into)
        return
    text = _READABLE.encode(kind if inner is None and kind else inner).replace(_INPUT, "input")
    into[name] = text if len(text) <= SHOWN_CHARACTERS else f"sha256 {digest_of(value)}"


def _files(patterns: tuple[str, ...]) -> dict[str, str]:
    """Contents of the files that a task declares, by patterns below the working folder; a folder stands
    for all that is in it."""
    found: dict[str, str] = {}
    for pattern in patterns:
        named = list(Path().glob(pattern))
        below = [inside for path in named if path.is_dir() for inside in _below(path, ())]
        files = {path for path in (*named, *below) if path.is_file()}
        found[f"files {pattern}"] = str(len(files))
        found |= {f"file {path.as_posix()}": file_digest(path) for path in files}
    return found


def _below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Every file below a folder, also behind links; a link to a folder above it would never end."""
    here = folder.resolve()
    if here in above:
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _below(path, (*above, here))
        else:
            yield path


def _variable(name: str) -> str:
    """A digest: the value may be a secret."""
    value = os.environ.get(name)
    return "unset" if value is None else f"sha256 {hashlib.sha256(value.encode()).hexdigest()}"
