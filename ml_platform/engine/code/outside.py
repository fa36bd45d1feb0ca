"""Names outside of the project that a key cannot see behind."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Collection
from typing import Any

_ANYWHERE = (
    "builtins.eval", "builtins.exec", "builtins.globals", "builtins.__import__", "builtins.compile",
    "importlib.import_module", "importlib.__import__", "importlib.reload", "sys.modules",
    "pkgutil.resolve_name", "pkgutil.iter_modules", "pkgutil.walk_packages", "pydoc.locate",
    "runpy.run_module", "runpy.run_path", "importlib.util.module_from_spec",
    "importlib.machinery.SourceFileLoader", "inspect.getmodule", "gc.get_objects", "gc.get_referrers",
    "gc.get_referents", "_frozen_importlib.module_from_spec", "_frozen_importlib_external.SourceFileLoader",
)  # fmt: skip
IMPORTERS = ("importlib.import_module", "builtins.__import__")
"""Of those, what a constant name makes an ordinary import."""
EVERYTHING = ("__subclasses__", "__globals__", "f_globals")
"""Attributes that lead to code and values of any module."""
_TEXT = (
    "__doc__", "getdoc", "getcomments", "getsource", "getsourcelines", "model_json_schema", "json_schema",
    "f_locals", "f_lineno", "co_firstlineno", "co_filename", "co_varnames",
)  # fmt: skip
"""Names of what reads the text of code, which is no part of what code does."""
BESIDE_CODE = "reads what lies beside its code: declare reads=[…]"
_PROGRAM = "starts a program, whose code no key sees: declare reads=[…] for a file of the project"
_PICKLED = "unpickles objects, whose code no key sees"
_FIELD_TEXT = {"description", "title", "examples", "json_schema_extra"}
ENVIRONMENT = "reads the environment: declare environment=[…]"
_RANDOM = "draws random numbers: take a seed as a parameter"
_CLOCK = "reads the clock: take the time as a parameter"
_UNSEEN = {
    "os.environ": ENVIRONMENT,
    "os.environb": ENVIRONMENT,
    "os.getenv": ENVIRONMENT,
    "importlib.resources": BESIDE_CODE,
    "pkgutil.get_data": BESIDE_CODE,
    "subprocess": _PROGRAM,
    "os.system": _PROGRAM,
    "pickle.load": _PICKLED,
    "pickle.loads": _PICKLED,
    "_pickle.load": _PICKLED,
    "_pickle.loads": _PICKLED,
    "random": _RANDOM,
    "numpy.random": _RANDOM,
    "secrets": _RANDOM,
    "uuid.uuid1": _RANDOM,
    "uuid.uuid4": _RANDOM,
    "time.time": _CLOCK,
    "time.time_ns": _CLOCK,
    "time.localtime": _CLOCK,
    "time.gmtime": _CLOCK,
    "datetime.datetime.now": _CLOCK,
    "datetime.datetime.utcnow": _CLOCK,
    "datetime.datetime.today": _CLOCK,
    "datetime.date.today": _CLOCK,
}


@functools.cache
def leads_anywhere(dotted: str) -> str:
    """The function or table behind a dotted name that may lead to any code; empty if there is none."""
    return next((name for name in _ANYWHERE if _is(dotted, name)), "")


def reads_everything(names: Collection[str]) -> str:
    """The one of these names of attributes that may lead to any code; empty if there is none."""
    return next((name for name in EVERYTHING if name in names), "")


def reads_text(names: Collection[str]) -> str:
    """The one of these names that reads docstrings, comments or lines; empty if there is none."""
    if "model_fields" in names and not _FIELD_TEXT.isdisjoint(names):
        return "model_fields"
    return next((name for name in _TEXT if name in names), "")


@functools.cache
def unseen(dotted: str) -> tuple[str, ...]:
    """What use of a dotted name makes a result depend on, beside what is in its key."""
    return tuple(note for name, note in _UNSEEN.items() if _is(dotted, name))


def _is(dotted: str, name: str) -> bool:
    return dotted == name or dotted.startswith(f"{name}.")


def dotted_name(value: Any) -> str:
    """Full name of a function or class, or of the two mappings that matter; empty for other values."""
    if value is sys.modules:
        return "sys.modules"
    if value is os.environ:
        return "os.environ"
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    return f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""
