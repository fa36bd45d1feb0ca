"""Modules that are not imported yet, read from their files: importing them may take seconds.

An import inside a function and a "module:attribute" string lead here. What they lead to is hashed from
source, statement by statement, so that it makes no difference whether the module happens to be loaded.
"""

from __future__ import annotations
import __future__

import ast
import functools
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any, Literal

from ml_platform.engine.code.effects import has_effect
from ml_platform.engine.code.origin import module_file

Kind = Literal["function", "class", "global"]
BODY = "<module>"
"""Name of the statements of a module that define no name of their own."""
EFFECTS = "<effects>"
"""Name of those that do something beyond binding names."""

_PARSING = threading.Lock()
_TRIES = 20


@dataclass(frozen=True)
class Binding:
    """What an import at the top of a module binds: a module, or a name of it."""

    module: str
    name: str = ""


@dataclass
class Source:
    """One module as its file says it is."""

    module: str
    file: Path | None
    statements: dict[str, list[ast.stmt]] = field(default_factory=dict)
    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    """By name, all that it may be: `try` and `if` choose when the module is imported."""
    for_types: dict[str, list[Binding]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    """Full names of what an import at its top may load: modules, and names that may be modules."""
    codes: dict[str, tuple[CodeType, ...]] = field(default_factory=dict)
    annotated: dict[str, tuple[CodeType, ...]] = field(default_factory=dict)
    content: bytes = b""
    """The whole file, where it is not Python that can be read."""

    @property
    def is_lazy(self) -> bool:
        """Whether a function of its own answers for names that it does not define."""
        return "__getattr__" in self.statements

    def kind(self, name: str) -> Kind:
        """What the statements that define a name make it."""
        kinds = {type(statement) for statement in self.statements[name]}
        if kinds <= {ast.FunctionDef, ast.AsyncFunctionDef}:
            return "function"
        return "class" if kinds == {ast.ClassDef} else "global"

    def code(self, name: str) -> tuple[CodeType, ...]:
        """Compiled statements that define a name. They are never run."""
        if name not in self.codes:
            self.codes[name] = tuple(_compiled([statement]) for statement in self.statements[name])
        return self.codes[name]

    def annotations(self, name: str) -> tuple[CodeType, ...]:
        """Annotations in the statements that define a name, each compiled as an expression."""
        if name not in self.annotated:
            self.annotated[name] = tuple(self._annotations(name))
        return self.annotated[name]

    def _annotations(self, name: str) -> Iterator[CodeType]:
        for statement in self.statements[name]:
            for node in ast.walk(statement):
                written = getattr(node, "annotation", None) or getattr(node, "returns", None)
                if isinstance(written, ast.expr):
                    yield from annotation_code(ast.unparse(written))

    def absolute(self, module: str, level: int) -> str:
        """Full name of a module that is imported here."""
        is_package = self.file is not None and self.file.name == "__init__.py"
        return absolute(module, level, self.module if is_package else self.module.rpartition(".")[0])


def absolute(module: str, level: int, package: str) -> str:
    """Full name of a module that is imported, perhaps relatively, from a module of `package`."""
    if not level:
        return module
    base = package.split(".")[: len(package.split(".")) - level + 1]
    return ".".join([*base, module] if module else base)


@functools.cache
def source_of(module: str) -> Source:
    """Read a module's file, once per process."""
    file = module_file(module)
    found = Source(module, file)
    tree = _tree(file) if file else None
    if tree:
        _collect(tree.body, found)
        _find_effects(tree.body, found)
    elif file:
        found.content = file.read_bytes()
    return found


def _tree(file: Path) -> ast.Module | None:
    """A file as a syntax tree. None: it is an extension module, or no Python that this version can read."""
    if file.suffix != ".py":
        return None
    try:
        tree: ast.Module = parsed(file.read_bytes())
    except (SyntaxError, ValueError):
        return None
    return tree


def parsed(text: str | bytes, mode: str = "exec") -> Any:
    """A syntax tree as `ast.parse` makes it, whatever other threads parse at the same time.

    Python before 3.11.9 and 3.12.3 counts the depth of all threads' trees in one place (python/cpython
    issue 106905). The lock keeps ours apart; another library's costs another try.
    """
    with _PARSING:
        for _ in range(_TRIES):
            try:
                return ast.parse(text, mode=mode)
            except SystemError:
                continue
        return ast.parse(text, mode=mode)


@functools.cache
def annotation_code(written: str) -> tuple[CodeType, ...]:
    """An annotation compiled as an expression; a quoted one counts as what is in the quotes."""
    try:
        node = parsed(written.strip(), mode="eval")
        if isinstance(node.body, ast.Constant) and isinstance(node.body.value, str):
            node = parsed(node.body.value.strip(), mode="eval")
    except SyntaxError:
        return ()
    return (compile(node, "", "eval"),)


@functools.cache
def file_code(file: Path) -> CodeType | None:
    """A whole file, compiled; None if it cannot be."""
    tree = _tree(file)
    return _compiled(tree.body) if tree else None


def imported_modules(file: Path) -> set[str]:
    """Full names of modules that a file imports anywhere, without those of relative imports."""
    found: set[str] = set()
    for node in ast.walk(_tree(file) or ast.Module([], [])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module)
    return found


def _compiled(statements: list[ast.stmt]) -> CodeType:
    # Annotations stay text, as in a module that imports them from __future__: they are not what runs.
    flags = __future__.annotations.compiler_flag
    code: CodeType = compile(ast.Module(statements, []), "", "exec", flags=flags, dont_inherit=True)
    return code


def _collect(statements: Iterable[ast.stmt], found: Source) -> None:
    for statement in statements:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            _bind(statement, found, found.bindings)
        elif _is_main(statement):
            continue
        elif _is_for_types(statement):
            for inner in ast.walk(statement):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    _bind(inner, found, found.for_types)
        elif not _is_docstring(statement):
            for name in _defined(statement):
                found.statements.setdefault(name, []).append(statement)
            _collect_nested(statement, found)


def _find_effects(statements: Iterable[ast.stmt], found: Source) -> None:
    imported = {name: bindings[-1].module for name, bindings in found.bindings.items()}
    effects = [
        statement
        for statement in statements
        if not _is_main(statement)
        and not _is_for_types(statement)
        and has_effect(statement, found.statements, imported)
    ]
    if effects:
        found.statements[EFFECTS] = effects


def _collect_nested(statement: ast.stmt, found: Source) -> None:
    """Imports under `try` and `if` at the top of the module bind names too."""
    if isinstance(statement, ast.If | ast.Try | ast.With):
        for inner in ast.walk(statement):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                _bind(inner, found, found.bindings)


def _defined(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Assign) and all(isinstance(t, ast.Name) for t in statement.targets):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id
    else:
        yield BODY


def _is_main(statement: ast.stmt) -> bool:
    """Whether this is `if __name__ == "__main__":`, which no importer runs."""
    test = statement.test if isinstance(statement, ast.If) else None
    left = test.left if isinstance(test, ast.Compare) else None
    return isinstance(left, ast.Name) and left.id == "__name__"


def _is_for_types(statement: ast.stmt) -> bool:
    test = statement.test if isinstance(statement, ast.If) else None
    name = test.id if isinstance(test, ast.Name) else test.attr if isinstance(test, ast.Attribute) else ""
    return name == "TYPE_CHECKING"


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _bind(node: ast.Import | ast.ImportFrom, found: Source, into: dict[str, list[Binding]]) -> None:
    loads = into is found.bindings
    if isinstance(node, ast.Import):
        found.imports |= {alias.name for alias in node.names if loads}
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            into.setdefault(name, []).append(Binding(alias.name if alias.asname else name))
        return
    module = found.absolute(node.module or "", node.level)
    found.imports |= {name for alias in node.names for name in (module, f"{module}.{alias.name}") if loads}
    for alias in node.names:
        if alias.name == "*":
            found.stars.append(module)
        else:
            into.setdefault(alias.asname or alias.name, []).append(Binding(module, alias.name))
