"""Everything that a function reaches, as parts that refer to each other.

Live objects of the project are taken apart; what an import inside a function leads to is read from source;
installed packages count by their versions; what nobody can resolve counts as its whole module or project.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import os
import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any

from ml_platform.engine.code import source
from ml_platform.engine.code.origin import is_there, origin
from ml_platform.engine.code.project import importable_files
from ml_platform.engine.code.scan import NAMED, Import, Scan, Use, scan, sha
from ml_platform.engine.code.source import BODY, Source, absolute, source_of
from ml_platform.engine.code.values import has_own_part, text_of

_MISSING = object()
_LOAD_NAMED = "ml_platform.specs.registry.load_named"
_COMPUTED = {
    "builtins.eval", "builtins.exec", "builtins.globals", "builtins.__import__", "builtins.compile",
    "importlib.import_module", "importlib.__import__", "importlib.reload", "sys.modules", "pkgutil.resolve_name",
    "pydoc.locate", "runpy.run_module", "runpy.run_path", "pkgutil.iter_modules", "pkgutil.walk_packages",
}  # fmt: skip
"""What may lead anywhere in the project."""

_OUTSIDE = {
    "reads the environment: declare environment=[…]": ("os.environ", "os.getenv", "os.environb", "posix.environ"),
    "draws random numbers: take a seed as a parameter": ("random", "numpy.random", "secrets", "uuid.uuid"),
    "reads the clock: take the time as a parameter": (
        "time.time", "time.localtime", "time.gmtime", "datetime.datetime.now", "datetime.datetime.utcnow",
        "datetime.datetime.today", "datetime.date.today",
    ),
}  # fmt: skip


@dataclass(eq=False)
class Part:
    """One thing that is reached: what it is (`content`), and the parts it uses (`uses`, in that order)."""

    module: str
    qualname: str
    kind: str
    content: str = ""
    uses: list[Part] = field(default_factory=list)

    @property
    def name(self) -> str:
        """How a person finds it."""
        return f"{self.module}.{self.qualname}" if self.qualname else self.module

    def use(self, part: Part) -> str:
        """Refer to another part; returns what stands for it in this one's content."""
        if part not in self.uses:
            self.uses.append(part)
        return f"@{self.uses.index(part)}"


class Walk:
    """One walk from one function."""

    def __init__(self, function: Any) -> None:
        self.parts: dict[Hashable, Part] = {}
        self.packages: set[str] = set()
        self.notes: set[str] = set()
        self.uncacheable: set[str] = set()
        self.bindings: list[tuple[Mapping[str, Any], str, Any]] = []
        self._queue: deque[Callable[[], None]] = deque()
        self._held: list[Any] = []
        self._whole_project = False
        self.inside: set[int] = set()
        self.root = Part("", "", "root")
        self.root.content = self.value(function, self.root, getattr(function, "__qualname__", "function"))
        self._drain()

    def _drain(self) -> None:
        while self._queue:
            self._queue.popleft()()
        if self._whole_project:
            self._take_whole_project()

    def part(
        self, key: Hashable, module: str, qualname: str, kind: str, fill: Callable[[Part], Iterable[str]]
    ) -> Part:
        """The part with this key; filled later, so that what refers to itself ends."""
        if key not in self.parts:
            part = self.parts[key] = Part(module, qualname, kind)
            self._queue.append(lambda: setattr(part, "content", sha([kind, qualname, *fill(part)])))
        return self.parts[key]

    def hold(self, value: Any) -> int:
        """Identity of an object that must not be collected while its identity is used."""
        self._held.append(value)
        return id(value)

    def value(self, value: Any, part: Part, path: str) -> str:
        """A live value as text; what it reaches becomes parts."""
        return text_of(value, part, path, self)

    def refuse(self, path: str, what: str) -> str:
        """Say that a value cannot be hashed."""
        self.uncacheable.add(f"{path}: {what} cannot be hashed")
        return "uncacheable"

    # Functions ------------------------------------------------------------------------------------------

    def function(self, function: FunctionType, *, annotated: bool = False) -> Part:
        """A function of the project."""
        module, qualname = true_name(function.__globals__), function.__code__.co_qualname
        key = ("function", self.hold(function))
        return self.part(
            key, module, qualname, "function", lambda part: self._function(function, part, annotated)
        )

    def _function(self, function: FunctionType, part: Part, annotated: bool) -> Iterable[str]:
        found = scan(function.__code__)
        closure = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        yield found.digest
        yield from found.free
        for name, default in _defaults(function):
            yield f"{name}={self.value(default, part, f'{part.name}({name}=…)')}"
        for name, value in sorted(vars(function).items()):
            if not name.startswith("__pydantic"):
                yield f".{name}={self.value(value, part, f'{part.name}.{name}')}"
        yield from self._uses(found, part, function.__globals__, closure)
        written = getattr(function, "__annotations__", {})
        yield from self.annotations(written, function.__globals__, part, written_counts=annotated)

    def wrapper(self, function: FunctionType, module: str) -> Part:
        """A function whose code is a package's, but which holds something of the project."""
        qualname = f"{function.__qualname__}@{function.__code__.co_qualname}"
        return self.part(
            ("wrapper", self.hold(function)),
            module,
            qualname,
            "function",
            lambda p: self._wrapper(function, p),
        )

    def _wrapper(self, function: FunctionType, part: Part) -> Iterable[str]:
        registry = getattr(function, "registry", None)
        if isinstance(registry, MappingProxyType):
            pairs = sorted(registry.items(), key=lambda pair: pair[0].__qualname__)
            return [self.value(member, part, part.name) for pair in pairs for member in pair]
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        held = {name: cell.cell_contents for name, cell in cells} | vars(function)
        return [f"{name}={self.value(held[name], part, f'{part.name}.{name}')}" for name in sorted(held)]

    def module_name(self, module: str) -> str:
        """Name of a module, also of the one that was started as `__main__`."""
        return true_name(self.globals_of(module)) if module == "__main__" else module

    def globals_of(self, module: str) -> Mapping[str, Any]:
        """Names that a loaded module defines."""
        return vars(sys.modules[module]) if module in sys.modules else {}

    def _uses(
        self, found: Scan, part: Part, names: Mapping[str, Any], closure: Mapping[str, Any]
    ) -> Iterable[str]:
        for use in sorted(found.uses):
            token = self._use(use, part, names, closure)
            if token:
                yield f"{use}={token}"
        package = str(names.get("__package__") or "")
        yield from self._imports(found, part, lambda i: absolute(i.module, i.level, package))
        yield from self._named(found, part)
        self._look_for_subclasses(found, part)

    def _use(self, use: Use, part: Part, names: Mapping[str, Any], closure: Mapping[str, Any]) -> str:
        if use.closure:
            if use.name not in closure:
                return ""
            try:
                value = closure[use.name].cell_contents
            except ValueError:
                return "empty"
            return self._follow(value, use, part, part.module, f"{part.qualname}.{use.name}", "closure value")
        if use.name in {"__name__", "__file__", "__doc__", "__package__", "__spec__"}:
            return ""
        if use.name in names:
            value = names[use.name]
            self.bindings.append((names, use.name, value))
            return self._follow(value, use, part, true_name(names), use.name, "global")
        return self._builtin(use, part)

    def _builtin(self, use: Use, part: Part) -> str:
        if hasattr(builtins, use.name):
            self._look_outside(f"builtins.{use.name}", part, use.argument)
            return ""
        return "missing"

    def _follow(self, value: Any, use: Use, part: Part, module: str, qualname: str, kind: str) -> str:
        attributes = use.attributes
        while isinstance(value, ModuleType):
            if origin(value.__name__) != "project":
                return self.foreign(value.__name__, attributes, part, use.argument)
            if not attributes:
                return part.use(self.module(value.__name__, part))
            module, qualname, holder, kind = value.__name__, attributes[0], value, "global"
            value, attributes = self._attribute(value, attributes[0]), attributes[1:]
            if value is _MISSING:
                return "missing"
            self.bindings.append((vars(holder), qualname, value))
        dotted = dotted_name(value)
        if dotted == _LOAD_NAMED:
            return self._load_named(part, use.argument)
        self._look_outside(".".join((dotted, *attributes)), part, use.argument)
        return self._target(value, part, module, qualname, kind)

    def _attribute(self, module: ModuleType, name: str) -> Any:
        try:
            return getattr(module, name)
        except AttributeError:
            return _MISSING

    def _target(self, value: Any, part: Part, module: str, qualname: str, kind: str) -> str:
        """What a name stands for: a part of its own unless the value is one already."""
        if has_own_part(value):
            return self.value(value, part, f"{module}.{qualname}")
        key = ("value", module, qualname, self.hold(value))
        name = f"{module}.{qualname}"
        return part.use(self.part(key, module, qualname, kind, lambda own: [self.value(value, own, name)]))

    def annotations(
        self, written: Mapping[str, Any], names: Mapping[str, Any], part: Part, *, written_counts: bool
    ) -> Iterable[str]:
        """Follow annotations: a parameter's class has methods that the function may call."""
        for name, annotation in sorted(written.items()):
            if not isinstance(annotation, str):
                token = self.value(annotation, part, f"{part.name}: {name}")
                yield f"{name}: {token}" if written_counts or "@" in token else ""
                continue
            if written_counts:
                yield f"{name}: {annotation}"
            for code in source.annotation_code(annotation):
                for use in sorted(scan(code).uses):
                    yield f"{name}: {use}={self._annotation_use(use, part, names)}"

    def _annotation_use(self, use: Use, part: Part, names: Mapping[str, Any]) -> str:
        if use.name in names or hasattr(builtins, use.name):
            return self._use(use, part, names, {})
        binding = source_of(part.module).for_types.get(use.name) if part.module != "__main__" else None
        if binding is None or origin(binding.module) == "project":
            return ""
        return self.foreign(binding.module, (binding.name, *use.attributes), part)

    # What lies outside of the project -------------------------------------------------------------------

    def foreign(self, module: str, attributes: tuple[str, ...], part: Part, argument: str = "") -> str:
        """A name of the standard library or of an installed package."""
        dotted = ".".join((module, *filter(None, attributes)))
        if origin(module) == "package":
            self.packages.add(module.partition(".")[0])
        self._look_outside(dotted, part, argument)
        return dotted

    def _look_outside(self, dotted: str, part: Part, argument: str) -> None:
        for name in _COMPUTED:
            if dotted == name or dotted.startswith(f"{name}."):
                self._computed(name, part, argument)
        if part.module.partition(".")[0] == "ml_platform":
            return
        for note, names in _OUTSIDE.items():
            if any(
                dotted == name or dotted.startswith((f"{name}.", f"{name}4", f"{name}1")) for name in names
            ):
                self.notes.add(f"{part.name}: {note}")

    def _computed(self, name: str, part: Part, argument: str) -> None:
        if argument and name in {"importlib.import_module", "builtins.__import__"}:
            part.use(self.module(argument, part)) if origin(argument) == "project" else self.foreign(
                argument, (), part
            )
            return
        self.take_whole_project(f"{part.name}: {name.removeprefix('builtins.')}(<computed>)")

    def take_whole_project(self, why: str) -> None:
        """Nobody can say what this leads to: everything counts."""
        self.notes.add(f"{why}: whole project hashed")
        self._whole_project = True

    def _look_for_subclasses(self, found: Scan, part: Part) -> None:
        if "__subclasses__" in found.attributes:
            self.take_whole_project(f"{part.name}: __subclasses__()")

    # Imports inside of code: read from source -----------------------------------------------------------

    def _imports(self, found: Scan, part: Part, full: Callable[[Import], str]) -> Iterable[str]:
        for one in sorted(found.imports, key=repr):
            module = full(one)
            if one.used is not None:
                chain = (one.name, *one.used) if one.name else one.used
                yield f"import {one}={self.imported(module, chain, part)}"
                continue
            yield self.imported(module, None, part)
            if one.name and is_there(f"{module}.{one.name}"):
                yield self.imported(f"{module}.{one.name}", None, part)

    def imported(self, module: str, chain: tuple[str, ...] | None, part: Part) -> str:
        """`module.name.name`, as an import inside of a function finds it. None: the module is only run."""
        if origin(module) != "project":
            return self.foreign(module, chain or (), part)
        found = source_of(module)
        if chain is None:
            return part.use(self.statement(found, BODY)) if BODY in found.statements else ""
        if found.is_binary or not chain:
            return part.use(self.module(module, part))
        return self._imported_name(found, chain[0], chain[1:], part)

    def _imported_name(self, found: Source, name: str, rest: tuple[str, ...], part: Part) -> str:
        if name in found.statements:
            return part.use(self.statement(found, name))
        if name in found.bindings:
            binding = found.bindings[name]
            return self.imported(binding.module, (binding.name, *rest) if binding.name else rest, part)
        submodule = f"{found.module}.{name}"
        if is_there(submodule):
            return self.imported(submodule, rest, part)
        if found.is_lazy:
            return self._lazy(found.module, name, rest, part)
        tokens = [self.imported(star, (name, *rest), part) for star in found.stars]
        return ",".join(tokens) or "missing"

    def _lazy(self, module: str, name: str, rest: tuple[str, ...], part: Part) -> str:
        try:
            value = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            self.take_whole_project(f"{part.name}: {module}.{name} cannot be imported ({error})")
            return "missing"
        return self._follow(value, Use(name, rest), part, module, name, "global")

    def statement(self, found: Source, name: str) -> Part:
        """What defines a name of a module, read from its file."""
        kind = found.kind(name) if name != BODY else "module"
        key = ("statement", found.module, name)
        return self.part(key, found.module, name, kind, lambda part: self._statement(found, name, part))

    def _statement(self, found: Source, name: str, part: Part) -> Iterable[str]:
        for code in found.code(name):
            scanned = scan(code)
            yield scanned.digest
            yield from self._source_uses(found, scanned, part, own=name)
        for code in found.annotations(name):
            yield from self._source_uses(found, scan(code), part, own=name)
        if name != BODY and BODY in found.statements:
            part.use(self.statement(found, BODY))

    def _source_uses(self, found: Source, scanned: Scan, part: Part, *, own: str) -> Iterable[str]:
        for use in sorted(scanned.uses):
            if use.closure or use.name == own or use.name.startswith("__"):
                continue
            token = self._source_use(found, use, part)
            if token:
                yield f"{use}={token}"
        yield from self._imports(scanned, part, lambda i: found.absolute(i.module, i.level))
        yield from self._named(scanned, part)
        self._look_for_subclasses(scanned, part)

    def _source_use(self, found: Source, use: Use, part: Part) -> str:
        binding = found.bindings.get(use.name)
        if binding and f"{binding.module}.{binding.name}" == _LOAD_NAMED:
            return self._load_named(part, use.argument)
        if binding and origin(binding.module) != "project":
            attributes = (binding.name, *use.attributes)
            return self.foreign(binding.module, attributes, part, use.argument)
        if use.name not in found.statements and not binding and not found.stars:
            return self._builtin(use, part) if hasattr(builtins, use.name) else ""
        return self._imported_name(found, use.name, use.attributes, part)

    # Registries -----------------------------------------------------------------------------------------

    def named(self, text: str, part: Part) -> str:
        """The object of the project that "module:attribute" names; empty if it names none."""
        if not NAMED.fullmatch(text):
            return ""
        module, _, attribute = text.partition(":")
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or origin(module) != "project" or not is_there(module):
            return ""
        return self.imported(module, (attribute,), part)

    def _named(self, found: Scan, part: Part) -> Iterable[str]:
        for text in sorted(found.names):
            token = self.named(text, part)
            if token:
                yield f"{text}={token}"

    def _load_named(self, part: Part, argument: str) -> str:
        """A registry: the tables of the module that reads it say what it may lead to."""
        if argument and self.named(argument, part):
            return "load_named"
        tables = [self.named(text, part) for text in registered(part.module)]
        if not any(tables):
            self.take_whole_project(f"{part.name}: load_named(<computed>)")
        return ",".join(["load_named", *tables])

    # Degradation ----------------------------------------------------------------------------------------

    def module(self, module: str, by: Part) -> Part:
        """A whole module of the project: all that it defines."""
        self.notes.add(f"{by.name}: module {module} is used as a value: whole module hashed")
        return self.part(("module", module), module, "", "module", lambda part: self._module(module, part))

    def _module(self, module: str, part: Part) -> Iterable[str]:
        found = source_of(module)
        if found.file is None:
            if not is_there(module):
                return ["missing"]
            return [self.refuse(module, "a module without a file")]
        if found.is_binary:
            return [hashlib.sha256(found.file.read_bytes()).hexdigest()]
        return [part.use(self.statement(found, name)) for name in sorted(found.statements)]

    def _take_whole_project(self) -> None:
        modules = {part.module for part in self.parts.values() if part.module}
        for root, file in importable_files(modules):
            name = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            part = self.parts[("file", file)] = Part(name, "", "module")
            part.content = sha([scan(source.file_code(file)).digest])
            self.root.use(part)
            tops = {imported.partition(".")[0] for imported in source.imported_modules(file)}
            self.packages |= {top for top in tops if origin(top) == "package"}


def _defaults(function: FunctionType) -> Iterable[tuple[str, Any]]:
    from ml_platform.specs.resources import ResourceSpec

    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][code.co_argcount - len(values) :]
    pairs = [*zip(names, values, strict=True), *sorted((function.__kwdefaults__ or {}).items())]
    # A recipe says where and on how much the task runs: the key counts it apart from the code.
    return [(name, value) for name, value in pairs if not isinstance(value, ResourceSpec)]


def true_name(names: Mapping[str, Any]) -> str:
    """Name of the module with these globals, also of the one that was started as `__main__`."""
    name = str(names.get("__name__") or "")
    spec = names.get("__spec__")
    return spec.name if name == "__main__" and spec is not None else name


def dotted_name(value: Any) -> str:
    """Full name of a function or class, or of one of the two mappings that matter; empty for other values."""
    if value is sys.modules:
        return "sys.modules"
    if value is os.environ:
        return "os.environ"
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    return f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""


def registered(module: str) -> list[str]:
    """Strings "module:attribute" in the tables of a module."""
    found = source_of(module)
    names = [name for name in found.statements if name == BODY or found.kind(name) == "global"]
    texts = {text for name in names for code in found.code(name) for text in scan(code).names}
    if found.file is None:
        texts = set(strings_in(vars(sys.modules[module]))) if module in sys.modules else set()
    return sorted(texts)


def strings_in(table: Any, depth: int = 3) -> Iterator[str]:
    """Strings in a table of tables."""
    if isinstance(table, str) and NAMED.fullmatch(table):
        yield table
    elif isinstance(table, Mapping) and depth:
        for member in list(table.values()):
            yield from strings_in(member, depth - 1)
    elif isinstance(table, tuple | list) and depth:
        for member in table:
            yield from strings_in(member, depth - 1)
