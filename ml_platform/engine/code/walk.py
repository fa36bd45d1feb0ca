"""Everything that a function reaches, as parts that refer to each other.

Live objects of the project are taken apart; installed packages count by their versions; what nobody can
resolve counts as its whole module or project.
"""

from __future__ import annotations

import builtins
import hashlib
import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any

from ml_platform.engine.code.late import LOAD_NAMED, Late
from ml_platform.engine.code.names import Use
from ml_platform.engine.code.origin import origin
from ml_platform.engine.code.outside import (
    BESIDE_CODE,
    IMPORTERS,
    dotted_name,
    leads_anywhere,
    reads_everything,
    reads_text,
    unseen,
)
from ml_platform.engine.code.project import importable_files
from ml_platform.engine.code.scan import Scan, scan, sha
from ml_platform.engine.code.source import absolute, annotation_code, file_code, imported_modules, source_of
from ml_platform.engine.code.values import has_own_part, text_of
from ml_platform.specs.resources import ResourceSpec

MISSING = object()
_OF_THE_PLACE = {"__name__", "__file__", "__doc__", "__package__", "__spec__"}
Place = tuple[str, str, str]
"""Module, name within it and kind of a value: where a person finds it."""


@dataclass(eq=False)
class Part:
    """One thing that is reached: what it is (`content`), and the parts that stand in it as @0, @1, …"""

    module: str
    qualname: str
    kind: str
    content: str = ""
    uses: list[Part] = field(default_factory=list)
    packages: set[str] = field(default_factory=set)
    imports: set[str] = field(default_factory=set)
    """Modules of the project that are imported on the way to what it uses."""
    notes: set[str] = field(default_factory=set)
    uncacheable: set[str] = field(default_factory=set)
    leads_anywhere: bool = False
    reads_text: bool = False

    @property
    def name(self) -> str:
        """How a person finds it."""
        return f"{self.module}.{self.qualname}" if self.qualname else self.module

    def use(self, part: Part) -> str:
        """Refer to another part; returns what stands for it in this one's content."""
        if part not in self.uses:
            self.uses.append(part)
        return f"@{self.uses.index(part)}"

    def reached(self) -> list[Part]:
        """This part and all that it uses, directly or not."""
        found = {self: None}
        waiting = [self]
        while waiting:
            new = [part for part in waiting.pop().uses if part not in found]
            found.update(dict.fromkeys(new))
            waiting += new
        return list(found)


class Walk:
    """A walk from some functions and classes. What several of them reach is read once, as it is then."""

    def __init__(self) -> None:
        self.inside: set[int] = set()
        self.late = Late(self)
        self._parts: dict[Hashable, Part] = {}
        self._in_place: dict[tuple[str, tuple[str, ...]], list[tuple[str, str, Any]]] = {}
        self._filling = Part("", "", "root")
        self._queue: deque[Callable[[], None]] = deque()
        self._held: list[Any] = []

    def root(self, function: Any) -> Part:
        """What one function or class is, as a part that nothing uses."""
        root = self._filling = Part("", "", "root")
        root.content = self.value(function, root, getattr(function, "__qualname__", "function"))
        self._fill()
        while effect := self._next_effect(root):
            root.use(effect)
            self._fill()
        reached = root.reached()
        if any(part.leads_anywhere for part in reached):
            self._add_whole_project(root, reached)
        return root

    def _fill(self) -> None:
        while self._queue:
            self._queue.popleft()()

    def _next_effect(self, root: Part) -> Part | None:
        modules = {name for part in root.reached() for name in (part.module, *part.imports)}
        new = [part for part in self.late.effects(modules) if part not in root.uses]
        return min(new, key=lambda part: part.module, default=None)

    def part(
        self, key: Hashable, module: str, qualname: str, kind: str, fill: Callable[[Part], Iterable[str]]
    ) -> Part:
        """The part with this key; filled later, so that what refers to itself ends."""
        if key not in self._parts:
            part = self._parts[key] = Part(module, qualname, kind)
            self._queue.append(lambda: self._fill_one(part, fill))
        return self._parts[key]

    def _fill_one(self, part: Part, fill: Callable[[Part], Iterable[str]]) -> None:
        self._filling = part
        part.content = sha([part.kind, part.qualname, *fill(part)])

    def hold(self, value: Any) -> int:
        """Identity of an object, which stays its own for as long as this walk goes on."""
        self._held.append(value)
        return id(value)

    def value(self, value: Any, part: Part, path: str) -> str:
        """A live value as text; what it reaches becomes parts."""
        return text_of(value, part, path, self)

    def refuse(self, path: str, what: str) -> str:
        """Say that a value cannot be hashed."""
        self._filling.uncacheable.add(f"{path}: {what} cannot be hashed")
        return "uncacheable"

    # Functions ------------------------------------------------------------------------------------------

    def function(self, function: FunctionType) -> Part:
        """A function of the project."""
        module, qualname = true_name(function.__globals__), function.__code__.co_qualname
        key = ("function", self.hold(function))
        return self.part(key, module, qualname, "function", lambda part: self._function(function, part))

    def _function(self, function: FunctionType, part: Part) -> Iterator[str]:
        found, names = scan(function.__code__), function.__globals__
        yield found.digest
        yield from found.free
        # A recipe says where and on how much the task runs: the key counts it apart from the code.
        recipes = {name for name, value in _defaults(function) if isinstance(value, ResourceSpec)}
        for name, value in _defaults(function):
            if name not in recipes:
                yield f"{name}={self.value(value, part, f'{part.name}({name}=…)')}"
        for name, value in sorted(vars(function).items()):
            if not name.startswith("__pydantic"):
                yield f".{name}={self.value(value, part, f'{part.name}.{name}')}"
        yield from self._wrapped_annotations(function, part)
        closure = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        for use in sorted(found.uses):
            token = self._use(use, part, names, closure)
            if token:
                yield f"{use}={token}"
        package = str(names.get("__package__") or "")
        yield from self.late.imports(found, part, lambda one: absolute(one.module, one.level, package))
        yield from self.late.named_in(found, part)
        self.look_for_ways_out(found, part)
        yield from self.annotations(function.__annotations__, names, part, recipes=recipes)

    def wrapper(self, function: FunctionType, module: str) -> Part:
        """A function whose code is a package's, but which holds something of the project."""
        qualname = f"{function.__qualname__}@{function.__code__.co_qualname}"
        key = ("wrapper", self.hold(function))
        return self.part(key, module, qualname, "function", lambda part: self._wrapper(function, part))

    def _wrapper(self, function: FunctionType, part: Part) -> Iterator[str]:
        registry = getattr(function, "registry", None)
        if isinstance(registry, MappingProxyType):
            # functools.singledispatch; what else it holds is a cache.
            pairs = sorted(registry.items(), key=lambda pair: str(pair[0].__qualname__))
            yield from (self.value(member, part, part.name) for pair in pairs for member in pair)
            return
        yield from self._wrapped_annotations(function, part)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        held = {name: _content(cell) for name, cell in cells} | vars(function)
        for name in sorted(held):
            yield f"{name}={self.value(held[name], part, f'{part.name}.{name}')}"

    def _wrapped_annotations(self, function: FunctionType, part: Part) -> Iterator[str]:
        """Annotations of what a decorator got: it may go by them, as pydantic's do."""
        wrapped = getattr(function, "__wrapped__", None)
        for name, annotation in sorted(getattr(wrapped, "__annotations__", {}).items()):
            yield f"{name}: {self.value(annotation, part, f'{part.name}: {name}')}"

    def look_for_ways_out(self, found: Scan, part: Part) -> None:
        """Attributes that lead to any module, or to what is left out: docstrings, comments, lines."""
        if name := reads_everything(found.attributes):
            self.take_whole_project(part, name)
        if name := reads_text(found.attributes):
            self.take_whole_project(part, f"{name}, which reads text", with_text=True)

    # Names ----------------------------------------------------------------------------------------------

    def _use(self, use: Use, part: Part, names: Mapping[str, Any], closure: Mapping[str, Any]) -> str:
        if use.closure:
            if use.name not in closure:
                return ""
            place = part.module, f"{part.qualname}.{use.name}", "closure value"
            return self.follow(_content(closure[use.name]), use, part, place)
        if use.name in _OF_THE_PLACE:
            if use.name == "__file__":
                self.note(part, BESIDE_CODE)
            return ""
        if use.name in names:
            return self.follow(names[use.name], use, part, (true_name(names), use.name, "global"))
        return self.builtin(use, part)

    def builtin(self, use: Use, part: Part) -> str:
        """A name that the module does not define."""
        if not hasattr(builtins, use.name):
            return "missing"
        self._look_outside(f"builtins.{use.name}", part, use.argument)
        return ""

    def follow(self, value: Any, use: Use, part: Part, place: Place) -> str:
        """What a name and its attributes stand for. Modules are seen through."""
        attributes = use.attributes
        while isinstance(value, ModuleType):
            module = value.__name__
            if origin(module) != "project":
                return self.foreign(module, attributes, part, use.argument)
            if not attributes:
                return part.use(self.late.module(module, part))
            name, *rest = attributes
            place, attributes, value = (module, name, "global"), tuple(rest), getattr(value, name, MISSING)
        if value is MISSING:
            return "missing"
        dotted = dotted_name(value)
        if dotted == LOAD_NAMED:
            return self.late.load_named(part, use.argument)
        self._look_outside(".".join((dotted, *attributes)), part, use.argument)
        return self._target(value, part, place)

    def _target(self, value: Any, part: Part, place: Place) -> str:
        module, qualname, kind = place
        name = f"{module}.{qualname}"
        if has_own_part(value):
            return self.value(value, part, name)
        key = ("value", module, qualname, self.hold(value))
        return part.use(self.part(key, module, qualname, kind, lambda own: [self.value(value, own, name)]))

    def foreign(self, module: str, attributes: tuple[str, ...], part: Part, argument: str = "") -> str:
        """A name of the standard library or of an installed package."""
        dotted = ".".join((module, *filter(None, attributes)))
        if origin(module) == "package":
            part.packages.add(module.partition(".")[0])
        self._look_outside(dotted, part, argument)
        return f"{dotted}{self._put_in_place(module, attributes, part)}"

    def _put_in_place(self, module: str, attributes: tuple[str, ...], part: Part) -> str:
        """What the project has set over names of a package, or of a class of it."""
        key = module, attributes
        if key not in self._in_place:
            self._in_place[key] = list(_put_in_place(module, attributes))
        return "".join(
            f" {said} {self.value(member, part, f'{module}.{name}')}"
            for said, name, member in self._in_place[key]
        )

    def _look_outside(self, dotted: str, part: Part, argument: str) -> None:
        anywhere = leads_anywhere(dotted)
        if anywhere in IMPORTERS and argument and not argument.startswith("."):
            self.late.imported(argument, (), part)
        elif anywhere:
            self.take_whole_project(part, f"{anywhere.removeprefix('builtins.')}(<computed>)")
        for text in unseen(dotted):
            self.note(part, text)

    def note(self, part: Part, text: str) -> None:
        """Say what the key does not see. What the platform itself reads is the platform's to answer for."""
        if part.module.partition(".")[0] != "ml_platform":
            part.notes.add(f"{part.name}: {text}")

    def annotations(
        self,
        written: Mapping[str, Any],
        names: Mapping[str, Any],
        part: Part,
        *,
        recipes: Iterable[str] = (),
    ) -> Iterator[str]:
        """Follow annotations: the class of a parameter has methods that may be called."""
        for name, annotation in sorted(written.items()):
            if not isinstance(annotation, str):
                yield f"{name}: {self.value(annotation, part, f'{part.name}: {name}')}"
                continue
            yield from (f"{name}: {text}" for text in self.written(annotation, part, names, name in recipes))

    def written(
        self, annotation: str, part: Part, names: Mapping[str, Any], is_recipe: bool = False
    ) -> Iterator[str]:
        """An annotation that is text: its constants may be bounds, and its names are followed."""
        for code in annotation_code(annotation):
            yield scan(code).digest
            for use in sorted(scan(code).uses):
                yield f"{use}={self._annotation(use, part, names, is_recipe)}"

    def _annotation(self, use: Use, part: Part, names: Mapping[str, Any], is_recipe: bool) -> str:
        if use.name in names or hasattr(builtins, use.name):
            return self._use(use, part, names, {})
        bindings = source_of(part.module).for_types.get(use.name)
        binding = bindings[-1] if bindings else None
        if binding is None or (is_recipe and origin(binding.module) == "project"):
            return ""
        chain = (binding.name, *use.attributes) if binding.name else use.attributes
        return self.late.imported(binding.module, chain, part)

    def module_name(self, module: str) -> str:
        """Name of a module, also of the one that was started as `__main__`."""
        return true_name(self.globals_of(module)) if module == "__main__" else module

    def globals_of(self, module: str) -> Mapping[str, Any]:
        """Names that a loaded module defines."""
        return vars(sys.modules[module]) if module in sys.modules else {}

    # The whole project ----------------------------------------------------------------------------------

    def take_whole_project(self, part: Part, why: str, *, with_text: bool = False) -> None:
        """Nobody can say what this leads to: everything counts, with text down to the last comment."""
        part.notes.add(f"{part.name}: {why}: whole project hashed")
        part.leads_anywhere = True
        part.reads_text = part.reads_text or with_text

    def _add_whole_project(self, root: Part, reached: Iterable[Part]) -> None:
        with_text = any(part.reads_text for part in reached)
        named = {part.module for part in reached if part.module}
        for folder, file in importable_files({module for module in named if origin(module) == "project"}):
            name = ".".join(file.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
            root.use(self._file(file, name, with_text))

    def _file(self, file: Path, name: str, with_text: bool) -> Part:
        key = ("file", file, with_text)
        if key not in self._parts:
            part = self._parts[key] = Part(name, "", "module")
            code = None if with_text else file_code(file)
            content = scan(code).digest if code else hashlib.sha256(file.read_bytes()).hexdigest()
            part.content = sha(["file", content])
            tops = {imported.partition(".")[0] for imported in imported_modules(file)}
            part.packages = {top for top in tops if origin(top) == "package"}
        return self._parts[key]


def true_name(names: Mapping[str, Any]) -> str:
    """Name of the module with these globals, also of the one that was started as `__main__`."""
    name = str(names.get("__name__") or "")
    spec = names.get("__spec__")
    return str(spec.name) if name == "__main__" and spec is not None else name


def _put_in_place(module: str, attributes: tuple[str, ...]) -> Iterator[tuple[str, str, Any]]:
    """How it reads, its name and the function itself, of each that the project has set there."""
    found: Any = sys.modules.get(module)
    for name in attributes:
        found = vars(found).get(name) if isinstance(found, ModuleType | type) else None
    if _is_of_project(found):
        yield "is", found.__qualname__, found
    elif isinstance(found, type):
        for name, member in vars(found).items():
            if _is_of_project(member):
                yield f"{name} is", name, member


def _is_of_project(value: Any) -> bool:
    if isinstance(value, FunctionType):
        module = str(value.__globals__.get("__name__") or "")
        return module in sys.modules and origin(module) == "project"
    return False


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _defaults(function: FunctionType) -> list[tuple[str, Any]]:
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][code.co_argcount - len(values) :]
    return [*zip(names, values, strict=True), *sorted((function.__kwdefaults__ or {}).items())]
