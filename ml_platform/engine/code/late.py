"""What is reached without having been imported: by an import inside a function, or by a name in a table."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ml_platform.engine.code.names import Import, Use
from ml_platform.engine.code.origin import is_there, origin
from ml_platform.engine.code.outside import BESIDE_CODE
from ml_platform.engine.code.scan import NAMED, Scan, scan
from ml_platform.engine.code.source import BODY, EFFECTS, Binding, Source, source_of

if TYPE_CHECKING:
    from ml_platform.engine.code.walk import Part, Walk

LOAD_NAMED = "ml_platform.specs.registry.load_named"
"""The one function that may import what a table names: the table says what it leads to."""


class Late:
    """Code read from source, for one walk. Every method returns text for the content of `part`."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self._resolving: set[tuple[str, str]] = set()

    def imports(
        self, found: Scan, part: Part, full: Callable[[Import], str], *, bound_elsewhere: bool = False
    ) -> Iterator[str]:
        """Imports inside of code. `full` tells the full name of a module.

        `bound_elsewhere`: other code may use the names that these imports bind, and is asked for them.
        """
        for one in sorted(found.imports, key=repr):
            module = full(one)
            if one.used is not None:
                chain = (one.name, *one.used) if one.name else one.used
                yield f"{one}={self.imported(module, chain, part)}"
                continue
            for_its_names = bound_elsewhere or _is_named(one, found.imports)
            yield self._executed(module, part, for_its_names)
            if one.name and is_there(f"{module}.{one.name}"):
                yield self._executed(f"{module}.{one.name}", part, for_its_names)

    def _executed(self, module: str, part: Part, for_its_names: bool) -> str:
        """A module that is imported: for names of it that count by themselves, or for all that it does."""
        if origin(module) != "project":
            return self.walk.foreign(module, (), part)
        part.imports.add(module)
        if not for_its_names:
            return part.use(self.module(module, part)) if is_there(module) else "missing"
        found = source_of(module)
        return part.use(self.statement(found, BODY)) if BODY in found.statements else ""

    def imported(self, module: str, chain: tuple[str, ...], part: Part) -> str:
        """`module.name.name`."""
        if origin(module) != "project":
            return self.walk.foreign(module, chain, part)
        part.imports.add(module)
        found = source_of(module)
        if found.content or not chain or chain[0] == "__dict__":
            return part.use(self.module(module, part))
        return self._name(found, chain[0], chain[1:], part)

    def _name(self, found: Source, name: str, rest: tuple[str, ...], part: Part) -> str:
        tokens = [part.use(self.statement(found, name))] if name in found.statements else []
        place = found.module, name
        if name in found.bindings and place not in self._resolving:
            self._resolving.add(place)  # `from package import module`, in that package, leads here again
            tokens += [self._bound(binding, rest, part) for binding in found.bindings[name]]
            self._resolving.remove(place)
            if BODY in found.statements:
                tokens.append(part.use(self.statement(found, BODY)))
        if tokens:
            return ",".join(tokens)
        submodule = f"{found.module}.{name}"
        if is_there(submodule):
            return self.imported(submodule, rest, part)
        if found.is_lazy or (found.file is None and found.module in sys.modules):
            return self._live(found.module, name, rest, part)
        for star in found.stars:
            tokens.append(self.imported(star, (name, *rest), part))
            if origin(star) == "project" and "__all__" in source_of(star).statements:
                tokens.append(part.use(self.statement(source_of(star), "__all__")))
        if BODY in found.statements:
            tokens.append(part.use(self.statement(found, BODY)))
        return ",".join(tokens) or "missing"

    def _bound(self, binding: Binding, rest: tuple[str, ...], part: Part, argument: str = "") -> str:
        """What an import at the top of a module may have bound, and attributes of that."""
        chain = (binding.name, *rest) if binding.name else rest
        if origin(binding.module) != "project":
            return self.walk.foreign(binding.module, chain, part, argument)
        return self.imported(binding.module, chain, part)

    def _live(self, module: str, name: str, rest: tuple[str, ...], part: Part) -> str:
        """A name that only the module itself can find."""
        try:
            value = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            self.walk.take_whole_project(part, f"{module}.{name} cannot be imported ({error})")
            return "missing"
        return self.walk.follow(value, Use(name, rest), part, (module, name, "global"))

    def statement(self, found: Source, name: str) -> Part:
        """What defines a name of a module."""
        kind = "module" if name in (BODY, EFFECTS) else found.kind(name)
        key = ("statement", found.module, name)
        return self.walk.part(key, found.module, name, kind, lambda part: self._statement(found, name, part))

    def _statement(self, found: Source, name: str, part: Part) -> Iterator[str]:
        for code in found.code(name):
            scanned = scan(code)
            yield scanned.digest
            yield from self._uses(found, scanned, part, own=name)
        for code in found.annotations(name):
            yield from self._uses(found, scan(code), part, own=name)
        if name not in (BODY, EFFECTS) and BODY in found.statements:
            part.use(self.statement(found, BODY))

    def _uses(self, found: Source, scanned: Scan, part: Part, *, own: str) -> Iterator[str]:
        for use in sorted(scanned.uses):
            if use.name == "__file__":
                self.walk.note(part, BESIDE_CODE)
            if not use.closure and use.name != own and not use.name.startswith("__"):
                yield f"{use}={self._use(found, use, part)}"
        at_top = own in (BODY, EFFECTS)
        yield from self.imports(
            scanned, part, lambda one: found.absolute(one.module, one.level), bound_elsewhere=at_top
        )
        yield from self.named_in(scanned, part)
        self.walk.look_for_ways_out(scanned, part)

    def _use(self, found: Source, use: Use, part: Part) -> str:
        bindings = found.bindings.get(use.name) or found.for_types.get(use.name) or []
        if any(f"{one.module}.{one.name}" == LOAD_NAMED for one in bindings):
            return self.load_named(part, use.argument)
        is_foreign = all(origin(one.module) != "project" for one in bindings)
        if bindings and use.name not in found.statements and (is_foreign or use.name not in found.bindings):
            return ",".join(self._bound(one, use.attributes, part, use.argument) for one in bindings)
        if use.name in found.statements or bindings or found.stars:
            return self._name(found, use.name, use.attributes, part)
        return self.walk.builtin(use, part)

    def effects(self, modules: Iterable[str]) -> Iterator[Part]:
        """What importing these modules did besides binding names. Of ours, none does anything."""
        done: set[str] = set()
        waiting = set(modules)
        while waiting:
            module = waiting.pop()
            top = module.partition(".")[0]
            if module in done or top in ("", "ml_platform") or origin(module) != "project":
                continue
            done.add(module)
            found = source_of(module)
            waiting |= {*found.imports, module.rpartition(".")[0]}
            if EFFECTS in found.statements:
                yield self.statement(found, EFFECTS)

    # Tables of names ------------------------------------------------------------------------------------

    def named(self, text: str, part: Part) -> str:
        """The object of the project that "module:attribute" names; empty if it names none."""
        module, _, attribute = text.partition(":")
        if not NAMED.fullmatch(text) or origin(module) != "project" or not is_there(module):
            return ""
        return self.imported(module, (attribute,), part)

    def named_in(self, found: Scan, part: Part) -> Iterator[str]:
        """Objects that strings in code name."""
        yield from (f"{text}={self.named(text, part)}" for text in sorted(found.names))

    def load_named(self, part: Part, argument: str) -> str:
        """What `load_named` may lead to where it is used: the tables of that module say it."""
        if argument and self.named(argument, part):
            return "load_named"
        tables = [self.named(text, part) for text in _registered(part.module)]
        if not any(tables):
            self.walk.take_whole_project(part, "load_named(<computed>)")
        return ",".join(["load_named", *tables])

    # Whole modules --------------------------------------------------------------------------------------

    def module(self, module: str, by: Part) -> Part:
        """All that a module of the project defines."""
        self.walk.note(by, f"module {module} is used as a value: whole module hashed")
        key = ("module", module)
        return self.walk.part(key, module, "", "module", lambda part: self._module(module, part))

    def _module(self, module: str, part: Part) -> Iterable[str]:
        found = source_of(module)
        if found.content:
            return [hashlib.sha256(found.content).hexdigest()]
        if found.file is None:
            known = is_there(module)
            return [self.walk.refuse(module, "a module without a file") if known else "missing"]
        defined = [part.use(self.statement(found, name)) for name in sorted(found.statements)]
        bound = [
            f"{name}={self._bound(one, (), part)}"
            for name in sorted(found.bindings)
            for one in found.bindings[name]
        ]
        return [*defined, *bound, *(self.imported(star, (), part) for star in found.stars)]


def _is_named(imported: Import, imports: Iterable[Import]) -> bool:
    """Whether code uses names of a module that it imports: it may want nothing but those."""
    used = [one for one in imports if one.used is not None and one.level == imported.level]
    names = [".".join(filter(None, (one.module, one.name, *(one.used or ())))) for one in used]
    return any(f"{name}.".startswith(f"{imported.module}.") for name in names) or (
        not imported.module and bool(names)
    )


def _registered(module: str) -> list[str]:
    """Strings "module:attribute" in the tables of a module."""
    found = source_of(module)
    if found.file is None:
        return sorted(_strings(vars(sys.modules[module]))) if module in sys.modules else []
    names = [name for name in found.statements if name == BODY or found.kind(name) == "global"]
    return sorted({text for name in names for code in found.code(name) for text in scan(code).names})


def _strings(table: Any, depth: int = 3) -> Iterator[str]:
    if isinstance(table, str) and NAMED.fullmatch(table):
        yield table
    elif isinstance(table, Mapping | tuple | list) and depth:
        for member in table.values() if isinstance(table, Mapping) else table:
            yield from _strings(member, depth - 1)
