"""Which statements of a module do something beyond binding its names, when the module is imported.

`decimal.getcontext().prec = 6` changes what code does that never names it. What only fills a table of
the module itself does not count: the table is looked at where it is used. Nor does logging.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

_OWN = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_LITERALS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_TABLES = {"list", "dict", "set", "deque", "defaultdict", "OrderedDict", "Counter"}


def has_effect(
    statement: ast.stmt, defined: Mapping[str, Sequence[ast.stmt]], imported: Mapping[str, str]
) -> bool:
    """Whether a statement at the top of a module does something that its names do not show.

    Args:
        defined: Statements that define a name of the module.
        imported: Module behind a name that is imported.
    """
    if isinstance(statement, _OWN):
        return False
    return any(not _shows(node, defined, imported) for node in _does(statement))


def _does(node: ast.AST) -> Iterator[ast.expr]:
    """Calls whose value nobody takes, and places that are written to."""
    if isinstance(node, ast.Expr) and any(isinstance(inner, ast.Call) for inner in ast.walk(node)):
        yield node.value
    if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        yield node
    for inner in ast.iter_child_nodes(node):
        if not isinstance(inner, (*_OWN, ast.Lambda)):
            yield from _does(inner)


def _shows(node: ast.expr, defined: Mapping[str, Sequence[ast.stmt]], imported: Mapping[str, str]) -> bool:
    """Whether it can be seen in a value of the module, or is about logging or a docstring."""
    if isinstance(node, ast.Attribute) and node.attr == "__doc__":
        return True
    name = _root(node)
    if imported.get(name, "").partition(".")[0] == "logging" or name == "globals":
        return True
    values = [getattr(statement, "value", None) for statement in defined.get(name, ())]
    if isinstance(node, ast.Attribute) and values:
        return all(isinstance(statement, _OWN) for statement in defined[name])
    through_name = isinstance(node, ast.Subscript) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    )
    return through_name and bool(values) and all(map(_is_own_value, values))


def _root(node: ast.expr) -> str:
    while not isinstance(node, ast.Name):
        inner = getattr(node, "value", None) or getattr(node, "func", None)
        if not isinstance(inner, ast.expr):
            return ""
        node = inner
    return node.id


def _is_own_value(value: ast.expr | None) -> bool:
    """A table that the module has made, or a logger."""
    if isinstance(value, ast.Call):
        called = ast.unparse(value.func).rpartition(".")[2]
        return called in _TABLES or called == "getLogger"
    return isinstance(value, _LITERALS)
