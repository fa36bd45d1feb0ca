"""What a promise cannot refuse by itself is found in the source of a dag's function, when it is decorated.

`x is None` and `isinstance(x, …)` are true or false of the promise instead of the result, an f-string
would hold the promise's name, and a plain function would get the promise for a value.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin

from ml_platform.engine.code.source import parsed
from ml_platform.errors import GraphError

_CONTAINERS = frozenset({"list", "tuple", "dict", "zip", "enumerate", "reversed"})
"""Built-in functions that only put promises together."""


def lint(function: Callable[..., Any]) -> None:
    """Refuse what would silently be wrong. Functions without source, as in a REPL, are let through.

    Raises:
        GraphError: All findings at once, each with its line.
    """
    try:
        lines, first = inspect.getsourcelines(function)
        tree = parsed(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return
    found = tree.body[0]
    if not isinstance(found, ast.FunctionDef):
        return
    finder = _Finder(_names(function))
    for statement in found.body:
        finder.visit(statement)
    if finder.faults:
        file = Path(inspect.getsourcefile(function) or "?").name
        raise GraphError(
            f"dag {function.__qualname__} uses a promise as a value",
            wanted="promises handed to tasks, whole or by a declared field",
            evidence="\n".join(f"{file}:{first + line - 1}: {what}" for line, what in finder.faults),
            hint="do it inside a task; `when(promise)` branches, `either(a, b)` joins, a helper is a @dag",
        )


def _names(function: Callable[..., Any]) -> Mapping[str, Any]:
    closure = inspect.getclosurevars(function)
    return {**closure.builtins, **closure.globals, **closure.nonlocals}


class _Finder(ast.NodeVisitor):
    """Follows which names stand for promises, in the order of the lines."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.names = names
        self.promises: set[str] = set()
        self.many: set[str] = set()
        self.faults: list[tuple[int, str]] = []

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            for name in _targets(target):
                (self.many.add if self._gives_many(node.value) else self.many.discard)(name)
                (self.promises.add if self._is_promise(node.value) else self.promises.discard)(name)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit_Assign(ast.Assign([node.target], node.value, lineno=node.lineno))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit_Assign(ast.Assign([node.target], node.value, lineno=node.lineno))

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        many = isinstance(node.iter, ast.Name) and node.iter.id in self.many
        for name in _targets(node.target):
            (self.promises.add if many or self._gives_many(node.iter) else self.promises.discard)(name)
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    def visit_Compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        if any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops) and any(map(self._is_promise, sides)):
            self._say(node, "`is` compares the promise, not its result")
        self.generic_visit(node)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        if self._is_promise(node.value):
            self._say(node, "an f-string holds the promise, not its result")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        if any(map(self._is_promise, arguments)) and not self._takes_promises(node.func):
            self._say(node, f"{ast.unparse(node.func)}(…) is no task and gets a promise")
        self.generic_visit(node)

    def visit_Match(self, node: ast.Match) -> None:
        if self._is_promise(node.subject):
            self._say(node.subject, "`match` looks at the promise, not its result")
        self.generic_visit(node)

    def _is_promise(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return node.id in self.promises
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred | ast.NamedExpr):
            return self._is_promise(node.value)
        return isinstance(node, ast.Call) and self._gives_promise(node.func)

    def _gives_promise(self, function: ast.expr) -> bool:
        from ml_platform.engine.dag import Dag
        from ml_platform.engine.declare import either
        from ml_platform.engine.task import Task

        called = self._object(function)
        if isinstance(called, Dag):
            return get_origin(called.fn.__annotations__.get("return")) not in (list, tuple, dict)
        return isinstance(called, Task) or called is either or self._is_variant(function)

    def _gives_many(self, node: ast.expr) -> bool:
        """Whether this is a list of promises."""
        from ml_platform.engine.declare import map_over

        return isinstance(node, ast.Call) and self._object(node.func) is map_over

    def _takes_promises(self, function: ast.expr) -> bool:
        from ml_platform.engine import declare
        from ml_platform.engine.dag import Dag
        from ml_platform.engine.task import Task

        if isinstance(function, ast.Name) and function.id in _CONTAINERS:
            return True
        called = self._object(function)
        if called is None:
            return True  # bound in the function itself: a variant of a task, a method of a list
        known = (declare.when, declare.either, declare.map_over)
        return isinstance(called, Task | Dag) or called in known or self._is_variant(function)

    def _is_variant(self, function: ast.expr) -> bool:
        """`task.with_options(…)(…)`."""
        made = isinstance(function, ast.Call) and isinstance(function.func, ast.Attribute)
        return made and function.func.attr == "with_options"  # type: ignore[attr-defined]

    def _object(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._object(node.value)
            return getattr(owner, node.attr, None) if owner is not None else None
        return None

    def _say(self, node: ast.expr, what: str) -> None:
        self.faults.append((node.lineno, what))


def _targets(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Tuple | ast.List):
        for member in node.elts:
            yield from _targets(member)
