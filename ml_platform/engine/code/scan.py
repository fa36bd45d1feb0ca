"""What a code object does and which names it uses, read from its bytecode alone.

The digest leaves out what does not change the meaning: file, lines, docstrings, names of local
variables, and the order of constants.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

NAMED = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")
"""A string that may name an object: "module:attribute"."""

_SKIPPED = {"NOP", "CACHE", "EXTENDED_ARG", "LOAD_CLOSURE", "MAKE_CELL", "COPY_FREE_VARS", "RESUME"}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD"}
_OPPOSITE = {
    ("JUMP_IF_FALSE_OR_POP", "JUMP_IF_TRUE_OR_POP"),
    ("JUMP_IF_TRUE_OR_POP", "JUMP_IF_FALSE_OR_POP"),
}
_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_LOCALS = {"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF", "LOAD_CLASSDEREF"}
# Varargs, varkeywords, generator, coroutine, iterable coroutine, async generator.
_FLAGS = 0x04 | 0x08 | 0x20 | 0x80 | 0x100 | 0x200


@dataclass(frozen=True, order=True)
class Use:
    """`name.attribute.attribute`, and the constant that it is called with, if it is called with one."""

    name: str
    attributes: tuple[str, ...] = ()
    argument: str = ""
    closure: bool = False

    def __str__(self) -> str:
        return ".".join((self.name, *self.attributes))


@dataclass(frozen=True, order=True)
class Import:
    """An import inside of code. `used` are attributes of what it binds; None: only executed."""

    module: str
    level: int
    name: str = ""
    used: tuple[str, ...] | None = None


@dataclass
class Scan:
    """What one code object is (`digest`) and what it and all code nested in it refer to."""

    digest: str = ""
    free: tuple[str, ...] = ()
    uses: set[Use] = field(default_factory=set)
    imports: set[Import] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)


@functools.lru_cache(maxsize=None)
def scan(code: CodeType) -> Scan:
    """Scan one code object; remembered for as long as the process lives."""
    return _scan(code, {})


def sha(parts: Iterable[str]) -> str:
    """sha256 of some strings; they cannot run into each other."""
    state = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        state.update(b"%d:" % len(encoded) + encoded)
    return state.hexdigest()


def constant(value: Any) -> str:
    """A constant as text, with its type: 1, 1.0 and True differ."""
    if isinstance(value, tuple):
        return f"({','.join(map(constant, value))})"
    if isinstance(value, frozenset):
        return f"{{{','.join(sorted(map(constant, value)))}}}"
    return f"{type(value).__name__} {value!r}"


def _scan(code: CodeType, outer: Mapping[str, set[Import]]) -> Scan:
    bytecode = dis.Bytecode(code)
    steps, place = _steps(list(bytecode))
    found = Scan(attributes=set(code.co_names))
    bound = {**outer, **_bound_imports(steps, found)}
    for index, step in enumerate(steps):
        _refer(steps, index, step, bound, found)
    text = list(_text(code, steps, place, bound, found))
    text.extend(_handlers(bytecode, place))
    arguments = code.co_varnames[: _argument_count(code)]
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS
    found.digest = sha([repr(arguments), repr(counts), *text])
    return found


def _argument_count(code: CodeType) -> int:
    stars = bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)
    return code.co_argcount + code.co_kwonlyargcount + stars


def _steps(instructions: list[dis.Instruction]) -> tuple[list[dis.Instruction], dict[int, int]]:
    """Instructions that mean something, and for every offset the index of the next of them."""
    steps: list[dis.Instruction] = []
    place: dict[int, int] = {}
    for index, step in enumerate(instructions):
        place[step.offset] = len(steps)
        if step.opname not in _SKIPPED and not _is_docstring(instructions, index):
            steps.append(step)
    return steps, place


def _is_docstring(steps: list[dis.Instruction], index: int) -> bool:
    """Whether this is part of `__doc__ = "…"` in the body of a class or module."""
    pair = (
        steps[index : index + 2]
        if steps[index].opname == "LOAD_CONST"
        else steps[max(index - 1, 0) : index + 1]
    )
    return [s.opname for s in pair] == ["LOAD_CONST", "STORE_NAME"] and pair[1].argval == "__doc__"


def _text(
    code: CodeType,
    steps: list[dis.Instruction],
    place: dict[int, int],
    bound: Mapping[str, set[Import]],
    found: Scan,
) -> Iterator[str]:
    arguments = set(code.co_varnames[: _argument_count(code)])
    cells: dict[str, str] = {}
    free: list[str] = []

    def cell(name: str) -> str:
        """Variables shared with nested functions, by order of first use: their names are free."""
        if name in arguments:
            return name
        if name in code.co_freevars and name not in free:
            free.append(name)
        return cells.setdefault(name, f"cell {len(cells)}")

    for step in steps:
        yield step.opname if not _jumps(step) else "jump"
        if step.opcode in dis.hasconst:
            if isinstance(step.argval, CodeType):
                inner = _scan(step.argval, bound)
                _merge(found, inner)
                yield inner.digest
                yield from map(cell, inner.free)
            else:
                found.names.update(_named(step.argval))
                yield constant(step.argval)
        elif step.opcode in dis.hasfree:
            yield cell(step.argval)
        elif step.opcode in dis.hasname:
            yield str(step.argval)
        elif _jumps(step):
            yield from _landing(step, steps, place)
        elif step.arg is not None:
            yield str(step.arg)
    found.free = tuple(free)


def _jumps(step: dis.Instruction) -> bool:
    return step.opcode in dis.hasjrel or step.opcode in dis.hasjabs


def _landing(step: dis.Instruction, steps: list[dis.Instruction], place: dict[int, int]) -> tuple[str, str]:
    """How and where a jump ends. A jump onto a jump is shortened by the compiler only within one line."""
    how, target = _direct(step), place[step.argval]
    for _ in steps:
        if target >= len(steps) or not _jumps(steps[target]):
            break
        then, onward = _direct(steps[target]), place[steps[target].argval]
        if (how, then) in _OPPOSITE:
            how, target = f"POP_{how.removesuffix('_OR_POP')}", target + 1
        elif then == "JUMP" or (then == how and how.endswith("_OR_POP")):
            target = onward
        else:
            break
    return how, str(target)


def _direct(step: dis.Instruction) -> str:
    return step.opname.replace("_FORWARD", "").replace("_BACKWARD", "").replace("_NO_INTERRUPT", "")


def _merge(found: Scan, inner: Scan) -> None:
    found.uses |= inner.uses
    found.imports |= inner.imports
    found.names |= inner.names
    found.attributes |= inner.attributes


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, str) and NAMED.fullmatch(value):
        yield value
    elif isinstance(value, tuple | frozenset):
        for member in value:
            yield from _named(member)


def _handlers(bytecode: dis.Bytecode, place: dict[int, int]) -> Iterator[str]:
    """Which instructions each `except` and `finally` guards. Only this table knows."""
    last: list[int] = []
    for entry in bytecode.exception_entries:
        start, end = place[entry.start], place.get(entry.end, len(place))
        guarded = [start, end, place[entry.target], entry.depth, int(entry.lasti)]
        if start == end:
            continue
        if last and last[1] == start and last[2:] == guarded[2:]:
            last[1] = end
            continue
        if last:
            yield repr(last)
        last = guarded
    yield repr(last)


def _refer(
    steps: list[dis.Instruction],
    index: int,
    step: dis.Instruction,
    bound: Mapping[str, set[Import]],
    found: Scan,
) -> None:
    if step.opname not in _GLOBALS and step.opname not in _LOCALS:
        return
    attributes, after = _attributes(steps, index)
    called_with = _constant_argument(steps, after)
    if called_with and index and steps[index - 1].argval == "getattr":
        attributes, called_with = (*attributes, called_with), ""
    name = step.argval
    if name in bound:
        found.imports |= {Import(i.module, i.level, i.name, attributes) for i in bound[name]}
    elif step.opname in _GLOBALS:
        found.uses.add(Use(name, attributes, called_with))
    elif step.opname in {"LOAD_DEREF", "LOAD_CLASSDEREF"}:
        found.uses.add(Use(name, attributes, called_with, closure=True))


def _attributes(steps: list[dis.Instruction], index: int) -> tuple[tuple[str, ...], int]:
    names: list[str] = []
    index += 1
    while index < len(steps) and steps[index].opname in _ATTRIBUTES:
        names.append(steps[index].argval)
        index += 1
    return tuple(names), index


def _constant_argument(steps: list[dis.Instruction], index: int) -> str:
    """The string that stands alone, or first, behind a callable."""
    if index + 1 >= len(steps) or steps[index].opname != "LOAD_CONST":
        return ""
    follows = steps[index + 1].opname in {"PRECALL", "CALL", "LOAD_CONST"}
    value = steps[index].argval
    return value if follows and isinstance(value, str) else ""


def _bound_imports(steps: list[dis.Instruction], found: Scan) -> dict[str, set[Import]]:
    """Local names that imports bind."""
    bound: dict[str, set[Import]] = {}
    for index, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level = steps[index - 2].argval if index >= 2 else 0
            _bind(steps, index, Import(step.argval, int(level or 0)), bound, found)
    return bound


def _bind(
    steps: list[dis.Instruction], index: int, module: Import, bound: dict[str, set[Import]], found: Scan
) -> None:
    found.imports.add(module)
    from_list = steps[index - 1].argval
    part = ""
    for step in steps[index + 1 :]:
        if step.opname == "IMPORT_FROM":
            part = step.argval
        elif step.opname.startswith("STORE_"):
            target = _target(module, part, bool(from_list))
            bound.setdefault(step.argval, set()).add(target)
            # Who else uses a global is not known here.
            used = () if step.opname == "STORE_GLOBAL" else None
            found.imports.add(Import(target.module, target.level, target.name, used))
            if not from_list:
                return
        elif step.opname not in {"SWAP", "POP_TOP"} or (step.opname == "POP_TOP" and from_list):
            return


def _target(module: Import, part: str, from_list: bool) -> Import:
    if from_list:
        return Import(module.module, module.level, part)
    whole = module.module if part else module.module.partition(".")[0]
    return Import(whole, module.level)
