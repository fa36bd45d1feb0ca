"""What a code object does and which names it uses, read from its bytecode alone.

The digest leaves out what does not change the meaning: file, lines, docstrings, the order of constants,
and names of local variables where nothing asks for them.
"""

from __future__ import annotations

import dis
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from ml_platform.engine.code.names import Import, Use, imports, uses
from ml_platform.engine.code.outside import reads_everything

NAMED = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")
"""A string that may name an object: "module:attribute"."""

_SKIPPED = {"NOP", "CACHE", "EXTENDED_ARG", "LOAD_CLOSURE", "MAKE_CELL", "COPY_FREE_VARS", "RESUME"}
_OPPOSITE = {
    ("JUMP_IF_FALSE_OR_POP", "JUMP_IF_TRUE_OR_POP"),
    ("JUMP_IF_TRUE_OR_POP", "JUMP_IF_FALSE_OR_POP"),
}
# Varargs, varkeywords, generator, coroutine, iterable coroutine, async generator.
_FLAGS = 0x04 | 0x08 | 0x20 | 0x80 | 0x100 | 0x200
_NAMES_LOCALS = {"locals", "vars", "dir", "eval", "exec"}
"""What may ask for local variables by their names."""


@dataclass
class Scan:
    """What one code object is (`digest`) and what it and all code nested in it refer to."""

    digest: str = ""
    free: tuple[str, ...] = ()
    uses: set[Use] = field(default_factory=set)
    imports: set[Import] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)


_scans: dict[int, tuple[CodeType, Scan]] = {}


def scan(code: CodeType) -> Scan:
    """Scan one code object; remembered for as long as the process lives."""
    # By identity: code objects may compare equal although they guard other instructions by `try`.
    if id(code) not in _scans:
        _scans[id(code)] = code, _scan(code, {})
    return _scans[id(code)][1]


def sha(parts: Iterable[str]) -> str:
    """sha256 of some strings; they cannot run into each other."""
    text = "".join([f"{len(part)}:{part}" for part in parts])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


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
    found = Scan(attributes=set(_read(steps)))
    bound = _bound(steps, outer, found)
    for one in uses(steps, bound):
        (found.uses if isinstance(one, Use) else found.imports).add(one)  # type: ignore[arg-type]
    text = list(_text(code, steps, place, bound, found))
    text.extend(_handlers(bytecode, place))
    arguments = code.co_varnames[: _argument_count(code)]
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS
    if not _NAMES_LOCALS.isdisjoint(code.co_names):
        text += (*code.co_varnames, *code.co_cellvars, *code.co_freevars)
    found.digest = sha([repr(arguments), repr(counts), *text])
    return found


def _read(steps: list[dis.Instruction]) -> Iterator[str]:
    """Names of globals and attributes, where they are not only written."""
    for step in steps:
        if step.opcode in dis.hasname and not step.opname.startswith(("STORE_", "DELETE_")):
            yield step.argval


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


class _Cells:
    """Variables shared with nested functions, by order of first use: their names mean nothing.

    Those of parameters do: a caller may use them. `free` are names from around, in that order.
    """

    def __init__(self, code: CodeType) -> None:
        self.free: list[str] = []
        self._from_around = code.co_freevars
        self._arguments = code.co_varnames[: _argument_count(code)]
        self._known: dict[str, str] = {}

    def text(self, name: str) -> str:
        if name in self._arguments:
            return name
        if name in self._from_around and name not in self.free:
            self.free.append(name)
        return self._known.setdefault(name, f"cell {len(self._known)}")


def _text(
    code: CodeType,
    steps: list[dis.Instruction],
    place: dict[int, int],
    bound: Mapping[str, set[Import]],
    found: Scan,
) -> Iterator[str]:
    cells = _Cells(code)
    for step in steps:
        if _jumps(step):
            yield from _landing(step, steps, place)
            continue
        yield step.opname
        if step.opcode in dis.hasconst:
            # Not `argval`: that of KW_NAMES, the names of keywords in a call, is unknown to `dis`.
            yield from _constant(code.co_consts[step.arg or 0], cells, bound, found)
        elif step.opcode in dis.hasfree:
            yield cells.text(step.argval)
        elif step.opcode in dis.hasname:
            yield str(step.argval)
        elif step.arg is not None:
            yield str(step.arg)
    found.free = tuple(cells.free)


def _constant(value: Any, cells: _Cells, bound: Mapping[str, set[Import]], found: Scan) -> Iterator[str]:
    if isinstance(value, CodeType):
        inner = _scan(value, bound)
        _merge(found, inner)
        yield inner.digest
        yield from map(cells.text, inner.free)
    else:
        found.names.update(_named(value))
        if isinstance(value, str) and reads_everything([value]):
            found.attributes.add(value)  # for `getattr`
        yield constant(value)


def _jumps(step: dis.Instruction) -> bool:
    return step.opcode in dis.hasjrel or step.opcode in dis.hasjabs


def _landing(
    step: dis.Instruction, steps: list[dis.Instruction], place: dict[int, int]
) -> tuple[str, str, str]:
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
    return "jump", how, str(target)


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
    for entry in bytecode.exception_entries:  # type: ignore[attr-defined]
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


def _bound(
    steps: list[dis.Instruction], outer: Mapping[str, set[Import]], found: Scan
) -> Mapping[str, set[Import]]:
    """Local names that imports bind, here or in the function around."""
    bound: dict[str, set[Import]] = {}
    for name, one in imports(steps):
        found.imports.add(one)
        if name:
            bound.setdefault(name, set()).add(one)
    return {**outer, **bound}
