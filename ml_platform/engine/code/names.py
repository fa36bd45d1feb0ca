"""Which names a piece of bytecode uses: of globals, of variables around it, and of what it imports."""

from __future__ import annotations

import dis
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD"}
_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_CELLS = {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"}
_LOCALS = {"LOAD_FAST", "LOAD_FAST_CHECK", *_CELLS}


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


def uses(steps: list[dis.Instruction], bound: Mapping[str, set[Import]]) -> Iterator[Use | Import]:
    """Names in a list of instructions, where imports have bound some local ones."""
    for index, step in enumerate(steps):
        if step.opname not in _GLOBALS and step.opname not in _LOCALS:
            continue
        attributes, after = _attributes(steps, index)
        argument = _constant_argument(steps, after)
        if argument and index and steps[index - 1].argval == "getattr":
            attributes, argument = (*attributes, argument), ""
        if step.argval in bound:
            yield from (replace(one, used=attributes) for one in bound[step.argval])
        elif step.opname in _GLOBALS | _CELLS:
            yield Use(step.argval, attributes, argument, closure=step.opname in _CELLS)


def imports(steps: list[dis.Instruction]) -> Iterator[tuple[str, Import]]:
    """Imports in a list of instructions, with the names that they bind; none for the import as such."""
    for index, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level, from_list = steps[index - 2].argval, bool(steps[index - 1].argval)
            module = Import(step.argval, level if isinstance(level, int) else 0)
            yield "", module
            yield from _bindings(steps[index + 1 :], module, from_list)


def _bindings(steps: list[dis.Instruction], module: Import, from_list: bool) -> Iterator[tuple[str, Import]]:
    part = ""
    for step in steps:
        if step.opname == "IMPORT_FROM":
            part = step.argval
        elif step.opname.startswith("STORE_"):
            target = _target(module, part, from_list)
            # Who else uses a global is not known here.
            yield step.argval, replace(target, used=()) if step.opname == "STORE_GLOBAL" else target
            if not from_list:
                return
        elif step.opname not in {"SWAP", "POP_TOP"} or (step.opname == "POP_TOP" and from_list):
            return


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


def _target(module: Import, part: str, from_list: bool) -> Import:
    if from_list:
        return Import(module.module, module.level, part)
    whole = module.module if part else module.module.partition(".")[0]
    return Import(whole, module.level)
