"""What reaches a task's key, what is said about it, and what is refused."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from ml_platform.engine.code import Code, code_of, explain
from ml_platform.engine.code.origin import module_file, origin
from ml_platform.engine.code.source import parsed
from ml_platform.engine.code.walk import Walk
from ml_platform.engine.keys import as_declared, task_code

Load = Callable[..., types.ModuleType]
_NUMBERS = itertools.count()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Writes a module of a project and imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded: list[str] = []

    def imported(text: str, name: str = "") -> types.ModuleType:
        name = name or f"project_{next(_NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        loaded.append(name)
        return importlib.import_module(name)

    yield imported
    for name in loaded:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("threading.Lock()", "_thread.lock"),
        ("sqlite3.connect(':memory:')", "sqlite3.Connection"),
        ("random.Random(1)", "random.Random"),
        ("np.random.default_rng(1)", "numpy.random._generator.Generator"),
        ("(i for i in 'ab')", "builtins.generator"),
        ("open(os.devnull)", "_io.TextIOWrapper"),
        ("LinearRegression()", "sklearn.linear_model._base.LinearRegression"),
    ],
)
def test_what_has_no_value_is_refused_with_path_and_type(load: Load, value: str, kind: str) -> None:
    module = load(f"""
        import os, random, sqlite3, threading
        import numpy as np
        from sklearn.linear_model import LinearRegression
        TABLE = {{"held": [1, {value}]}}
        def task(): return TABLE
    """)
    code = code_of(module.task)
    if hasattr(module.TABLE["held"][1], "close"):
        module.TABLE["held"][1].close()
    assert code.uncacheable == (f"{module.__name__}.TABLE['held'][1]: a {kind} cannot be hashed",)


@pytest.mark.parametrize(
    ("body", "note"),
    [
        ("os.environ['A']", "reads the environment: declare environment=[…]"),
        ("os.getenv('A')", "reads the environment: declare environment=[…]"),
        ("random.random()", "draws random numbers: take a seed as a parameter"),
        ("uuid.uuid4()", "draws random numbers: take a seed as a parameter"),
        ("time.time()", "reads the clock: take the time as a parameter"),
        ("datetime.now()", "reads the clock: take the time as a parameter"),
        ("eval('1')", "eval(<computed>): whole project hashed"),
        ("globals()", "globals(<computed>): whole project hashed"),
        ("sys.modules", "sys.modules(<computed>): whole project hashed"),
        ("int.__subclasses__()", "__subclasses__: whole project hashed"),
        ("importlib.import_module(os.curdir)", "importlib.import_module(<computed>): whole project hashed"),
        ("load_named(os.curdir)", "load_named(<computed>): whole project hashed"),
        ("gc.get_objects()", "gc.get_objects(<computed>): whole project hashed"),
        ("inspect.getmodule(task)", "inspect.getmodule(<computed>): whole project hashed"),
        ("getattr(int, '__subclasses__')()", "__subclasses__: whole project hashed"),
        ("__file__", "reads what lies beside its code: declare reads=[…]"),
        ("pkgutil.get_data('a', 'b')", "reads what lies beside its code: declare reads=[…]"),
        ("pickle.loads(b'')", "unpickles objects, whose code no key sees"),
        (
            "subprocess.run(['a'])",
            "starts a program, whose code no key sees: declare reads=[…] for a file of the project",
        ),
    ],
)
def test_what_a_key_cannot_see_is_said(load: Load, body: str, note: str) -> None:
    module = load(f"""
        import gc, importlib, inspect, os, pickle, pkgutil, random, subprocess, sys, time, uuid
        from datetime import datetime
        from ml_platform.specs.registry import load_named
        def task(): return {body}
    """)
    assert code_of(module.task).notes == (f"{module.__name__}.task: {note}",)


def test_a_module_used_as_a_value_counts_whole(load: Load) -> None:
    helper = load("def one(): return 1\ndef two(): return 2\n")
    module = load(f"import {helper.__name__} as helper\ndef task(name): return getattr(helper, name)()\n")
    code = code_of(module.task)
    assert code.notes == (
        f"{module.__name__}.task: module {helper.__name__} is used as a value: whole module hashed",
    )
    assert {f"{helper.__name__}.one", f"{helper.__name__}.two"} <= set(code.parts)


def test_loggers_and_recipes_are_free(load: Load) -> None:
    """A logger has no value; a recipe is keyed apart from the code."""
    module = load("""
        import logging
        from ml_platform import Spark
        log = logging.getLogger("a")
        def one(spark=Spark()): log.info("x")
        def two(spark=Spark(conf={"a": "b"})): log.info("x")
        two.__code__ = two.__code__.replace(co_qualname="one")
    """)
    one = code_of(module.one)
    assert not one.notes
    assert not one.uncacheable
    assert one.parts[f"{module.__name__}.one"] == code_of(module.two).parts[f"{module.__name__}.one"]


def test_a_task_counts_as_its_function(load: Load) -> None:
    """Also where another task reaches it."""
    module = load("""
        from ml_platform import task
        @task
        def inner(x: int) -> int: return x
        @task
        def outer(x: int) -> int: return inner.fn(x)
    """)
    assert code_of(module.outer) == code_of(module.outer.function)
    assert f"{module.__name__}.inner" in code_of(module.outer).parts


def test_a_name_bound_anew_is_seen(load: Load) -> None:
    """In a notebook, or after a reload."""
    module = load("LIMIT = 1\ndef task(): return LIMIT, later()\n")
    first = code_of(module.task)
    assert code_of(module.task) == first
    module.LIMIT = 2  # type: ignore[attr-defined]
    second = code_of(module.task)
    assert explain(first, second) == f"global {module.__name__}.LIMIT changed"
    module.later = lambda: 3  # type: ignore[attr-defined]
    assert code_of(module.task).digest != second.digest


def test_two_helpers_of_one_name_cannot_be_swapped(load: Load) -> None:
    """Both are reached before and after; only who uses which has changed."""
    a, b = (load(f"LIMIT = {limit}\ndef helper(): return LIMIT\n") for limit in (1, 2))
    imports = "from {0} import helper as first\nfrom {1} import helper as second\n"
    text = imports + "def task(): return first() - second()\n"
    one = code_of(load(text.format(a.__name__, b.__name__)).task)
    other = code_of(load(text.format(b.__name__, a.__name__)).task)
    assert sorted(set(one.parts.values())) == sorted(set(other.parts.values()))
    assert one.digest != other.digest
    assert explain(one, other) == "another function of the same name is used"


DIFFERENT = {
    "variable of a nested function": (
        "def task(a, b): return [a for _ in 'x']",
        "def task(a, b): return [b for _ in 'x']",
    ),
    "order of captured variables": (
        "def make(x, y): return lambda: x - y\ntask = make(1, 2)",
        "def make(x, y): return lambda: y - x\ntask = make(1, 2)",
    ),
    "what a try guards": (
        "def task(a):\n try:\n  a()\n  b()\n except E: pass",
        "def task(a):\n a()\n try:\n  b()\n except E: pass",
    ),
    "text that is a docstring too": (
        "def task():\n 'abc'\n return 'abc'",
        "def task():\n 'xyz'\n return 'xyz'",
    ),
    "order of a table": (
        "T = {'a': 1, 'b': 2}\ndef task(): return T",
        "T = {'b': 2, 'a': 1}\ndef task(): return T",
    ),
    "a builtin shadowed": (
        "def task(): return len('a')",
        "def len(x): return 3\ndef task(): return len('a')",
    ),
    "alias of a method": (
        "class A:\n def f(self): return 1\n def g(self): return 2\n h = f\ndef task(): return A().h()",
        "class A:\n def f(self): return 1\n def g(self): return 2\n h = g\ndef task(): return A().h()",
    ),
    "annotation that a decorator reads": (
        "from pydantic import validate_call\n@validate_call\ndef task(x: int): return x",
        "from pydantic import validate_call\n@validate_call\ndef task(x: float): return x",
    ),
    "another function under one name": (
        "from math import *\ndef task(): return sin(1)",
        "from cmath import *\ndef task(): return sin(1)",
    ),
    "method that exec has made": tuple(
        f"import dataclasses\nmade = {{}}\nexec('def f(self): return {n}', made)\n"
        "@dataclasses.dataclass\nclass A:\n f = made['f']\ndef task(): return A().f()"
        for n in (1, 2)
    ),
    "bound of a type variable": tuple(
        f"from typing import TypeVar\nclass A:\n def f(self): return {n}\n"
        "T = TypeVar('T', bound=A)\ndef task(a: T): return a.f()"
        for n in (1, 2)
    ),
    "constant of another type": ("def task(): return (1,)", "def task(): return (True,)"),
    "sign of zero": ("T = 0.0\ndef task(): return T", "T = -0.0\ndef task(): return T"),
}
EQUAL = {
    "renamed variable of a comprehension": (
        "def task(x):\n a = 1\n b = 2\n return [a + b + i for i in x]",
        "def task(x):\n z = 1\n b = 2\n return [z + b + i for i in x]",
    ),
    "renamed variables of a lambda": (
        "def task():\n a = 1\n b = 2\n return lambda: a - b",
        "def task():\n b = 1\n a = 2\n return lambda: b - a",
    ),
    "order of a set": (
        "T = {'a', 'b', 'c'}\ndef task(): return T",
        "T = {'c', 'b', 'a'}\ndef task(): return T",
    ),
    "docstring of a nested class": (
        "def task():\n class A:\n  'one'\n  x = 1\n return A.x",
        "def task():\n class A:\n  'two'\n  x = 1\n return A.x",
    ),
}


KINDS = {
    "enums": "class A(enum.StrEnum):\n X = 'x'\nclass B(enum.IntFlag):\n X = 1\n Y = 2\nV = A.X, B.X | B.Y",
    "generic": "class A(Generic[T]):\n def f(self) -> T: ...\nclass B(A[int]): pass\nV = B(), A[str]",
    "protocol": "@runtime_checkable\nclass A(Protocol):\n x: int\n def f(self): ...\nV = A",
    "abstract": "class A(abc.ABC):\n @abc.abstractmethod\n def f(self): ...\nV = A",
    "typed dict": "class A(TypedDict, total=False):\n x: Required[int]\nV = A(x=1)",
    "typed dict of the extensions": "class A(te.TypedDict, total=False):\n x: int\nV = A(x=1)",
    "named tuple": "class A(NamedTuple):\n x: int = 1\nV = A()",
    "dataclass": "@dataclasses.dataclass(slots=True, frozen=True, order=True, kw_only=True)\n"
    "class A:\n x: int = 1\n y: dataclasses.InitVar[int] = 2\nV = A()",
    "model": "class A(BaseModel, Generic[T]):\n x: T\n _y: int = 2\nV = A[int](x=1)",
    "root model": "class A(RootModel[list[int]]): pass\nV = A([1])",
    "dataclass of pydantic": "@pydantic.dataclasses.dataclass\nclass A:\n x: int = Field(1, gt=0)\nV = A()",
    "attrs": "@attrs.define\nclass A:\n x: int = attrs.field(default=1, validator=attrs.validators.ge(0))\n"
    "@attrs.frozen\nclass B(A):\n y: list = attrs.Factory(list)\nV = A(), B()",
    "exception": "class A(ValueError):\n code = 3\nV = A('x')",
    "types of Python": "class A(int): pass\nclass B(dict): pass\nclass C(str): pass\nV = A(1), B(a=1), C()",
    "slots": "class A:\n __slots__ = ('x', '__dict__')\nV = A()",
    "ordering": "@functools.total_ordering\nclass A:\n def __lt__(self, o): return True\nV = A()",
    "methods": "class A:\n f = str.upper\n g = dict.fromkeys\n __str__ = object.__repr__\nV = A()",
    "descriptors": "class A:\n @functools.cached_property\n def f(self): ...\n"
    " @functools.singledispatchmethod\n def g(self, x): ...\n"
    " h = functools.partialmethod(g, 1)\n @classmethod\n def i(cls): ...\n"
    " @property\n def j(self): ...\nV = A()",
}


@pytest.mark.parametrize("name", KINDS)
def test_classes_of_every_kind_have_a_value(load: Load, name: str) -> None:
    module = load(
        "import abc, dataclasses, enum, functools, attrs, pydantic.dataclasses, typing_extensions as te\n"
        "from typing import *\nfrom pydantic import BaseModel, Field, RootModel\n"
        f"T = TypeVar('T')\n{KINDS[name]}\ndef task(): return V\n"
    )
    assert code_of(module.task).uncacheable == ()
    assert code_of(module.task) == code_of(module.task)


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_has_another_digest(load: Load, name: str) -> None:
    one, other = (code_of(load(text).task).digest for text in DIFFERENT[name])
    assert one != other


@pytest.mark.parametrize("name", EQUAL)
def test_what_means_the_same_has_one_digest(load: Load, name: str) -> None:
    one, other = (code_of(load(text).task).digest for text in EQUAL[name])
    assert one == other


@pytest.mark.slow
def test_a_file_beside_the_code_is_the_same_in_every_checkout(tmp_path: Path) -> None:
    """A path below the project counts from the project's root."""
    codes = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "placed.py").write_text(
            "from pathlib import Path\nHERE = Path(__file__).parent / 'x.sql'\ndef task(): return HERE\n"
        )
        program = (
            "import placed; from ml_platform.engine.code import code_of; print(code_of(placed.task).digest)"
        )
        codes.append(_python(tmp_path / folder, "-c", program))
    assert codes[0] == codes[1]


@pytest.mark.slow
def test_a_module_has_one_key_through_every_door(tmp_path: Path) -> None:
    """Started with -m, as a file, or imported by name."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "flow.py").write_text(
        textwrap.dedent("""
        from __future__ import annotations
        import enum
        from pydantic import BaseModel
        from ml_platform.engine.code import code_of
        class Kind(enum.Enum):
            A = 1
        class Spec(BaseModel):
            kind: Kind = Kind.A
        def helper(spec: Spec) -> int: return spec.kind.value
        def task(spec: Spec = Spec()) -> int:
            from shop.flow import helper as late
            return helper(spec) + late(spec)
        if __name__ == "__main__":
            from shop.flow import task as imported
            here, there = code_of(task), code_of(imported)
            assert task is not imported
            assert not here.notes and not here.uncacheable
            print(here.digest, there.digest, "shop.flow.task" in here.parts)
        """)
    )
    module = _python(tmp_path, "-m", "shop.flow").split()
    file = _python(tmp_path, "shop/flow.py").split()
    assert module[0] == module[1] == file[0] == file[1]
    assert module[2] == "True"


def test_a_walk_finds_the_same_whatever_it_found_before(load: Load) -> None:
    """Also notes, packages, refusals, and what leads anywhere: each belongs to who reaches it."""
    module = load("""
        import random, threading
        import numpy as np
        LOCK = threading.Lock()
        def plain(): return 1
        def drawn(): return random.random() + plain()
        def held(): return LOCK, plain()
        def shaped(): return np.zeros(plain())
        def anything(name): return eval(name) + plain()
        def everything(name): return drawn(), held(), shaped(), anything(name)
    """)
    names = ["everything", "anything", "shaped", "held", "drawn", "plain"]
    walk = Walk()
    for name in (*names, *names[::-1]):
        assert code_of(getattr(module, name), walk) == code_of(getattr(module, name)), name


def test_what_was_not_read_to_its_end_is_read_anew(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure while code is read must leave nothing half-read behind for the next task."""
    module = load("""
        def helper(): return 1
        def first(): return helper()
        def second(): return helper() + 1
    """)
    read, failures = Walk.annotations, [OSError("not now")]

    def reads(walk: Walk, *given: Any, **more: Any) -> Iterator[str]:
        if failures:
            raise failures.pop()
        return read(walk, *given, **more)

    with as_declared():
        monkeypatch.setattr(Walk, "annotations", reads)
        with pytest.raises(OSError, match="not now"):
            task_code(module.first)
        assert task_code(module.second) == code_of(module.second)
        assert task_code(module.first) == code_of(module.first)


def test_code_goes_through_json(load: Load) -> None:
    code = code_of(load("def task(): return 1\n").task)
    again = Code.model_validate_json(code.model_dump_json())
    assert again == code
    assert again.digest == code.digest
    assert explain(code, again) == ""


def test_reasons_are_short() -> None:
    old = Code(parts={f"m.f{i}": f"function {i}" for i in range(5)}, packages={"keras": "3.15.1"}, wiring="")
    new = Code(parts={f"m.f{i}": f"function {i}0" for i in range(5)}, packages={"keras": "3.16.0"}, wiring="")
    assert explain(old, new) == "5 functions changed: m.f0, m.f1, m.f2 and 2 more; keras 3.15.1 → 3.16.0"
    gone = Code(parts={"m.f0": "function 0"}, packages={"keras": "3.15.1"}, wiring="")
    assert explain(old, gone) == "4 functions are gone: m.f1, m.f2, m.f3 and 1 more"


def test_a_module_in_nested_namespace_packages_is_found_unimported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `google.cloud.storage`: neither of the outer two has an `__init__.py`."""
    package = tmp_path / "outer_space" / "inner" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "part.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert module_file("outer_space.inner.package") == package / "__init__.py"
    assert module_file("outer_space.inner.package.part") == package / "part.py"
    assert module_file("outer_space.inner") is None
    assert origin("google.protobuf.message") == "package"
    assert module_file("outer_space.missing.part") is None
    assert "outer_space" not in sys.modules


def test_importing_the_platform_does_nothing() -> None:
    """So that what its modules do when they are imported need not be looked for."""
    import ml_platform
    from ml_platform.engine.code.source import EFFECTS, source_of

    root = Path(ml_platform.__path__[0])
    names = [".".join(file.relative_to(root.parent).with_suffix("").parts) for file in root.rglob("*.py")]
    assert [name for name in names if EFFECTS in source_of(name).statements] == ["ml_platform.cli.main"]


def test_formatting_is_free() -> None:
    """A module of the standard library, written anew by Python itself, has the same digests."""
    import argparse
    import ast
    import inspect

    from ml_platform.engine.code.scan import scan

    text = inspect.getsource(argparse)
    written, anew = (compile(ast.parse(t), "", "exec") for t in (text, ast.unparse(ast.parse(text))))
    pairs = list(zip(_functions(written), _functions(anew), strict=True))
    assert len(pairs) > 100
    assert [one.co_qualname for one, two in pairs if scan(one).digest != scan(two).digest] == []


def test_a_parse_that_another_thread_has_upset_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11.7 fails now and then while another library parses, too."""
    failed: list[BaseException] = []

    def fails_at_first(text: str | bytes, mode: str) -> object:
        if not failed:
            failed.append(SystemError("AST constructor recursion depth mismatch (before=78, after=75)"))
            raise failed[0]
        return mode, text

    monkeypatch.setattr("ast.parse", fails_at_first)
    assert parsed("1 + 1", mode="eval") == ("eval", "1 + 1")
    assert failed


def _functions(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _functions(constant)


def _python(folder: Path, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout.strip()


# Generated projects: functions that call functions of other modules ----------------------------------------


class Project:
    """Three modules of functions; function i returns a constant of its module and calls others."""

    def __init__(self, calls: list[set[int]], constants: list[int], uses: list[int]) -> None:
        self.calls, self.constants, self.uses = calls, list(constants), uses
        self.cosmetic: set[int] = set()

    def code(self, *, others_first: bool = False) -> Code:
        """Load it under names of its own and hash function 0, perhaps after all others."""
        number = next(_NUMBERS)
        modules = [types.ModuleType(f"generated_{number}_{m}") for m in range(3)]
        for m, module in enumerate(modules):
            exec(self._text(m), vars(module))
        for module in modules:
            for other in modules:
                found = {k: v for k, v in vars(other).items() if k.startswith("f")}
                vars(module).update(found)
        walk = Walk()
        for i in range(len(self.calls) - 1, 0, -1) if others_first else ():
            code_of(vars(modules[i % 3])[f"f{i}"], walk)
        return code_of(modules[0].f0, walk)

    def _text(self, m: int) -> str:
        lines = [f"C{i} = {value}" for i, value in enumerate(self.constants)]
        for i, calls in enumerate(self.calls):
            if i % 3 == m:
                lines.append(f"def f{i}(depth=0):")
                if i in self.cosmetic:
                    lines += ["    '''Documented.'''", "    # and explained", ""]
                terms = [f"C{self.uses[i]}", *(f"f{j}(depth + 1)" for j in sorted(calls))]
                lines.append(f"    return {' + '.join(terms)}")
        return "\n".join(lines)

    def reached(self) -> set[int]:
        """Functions that function 0 reaches."""
        seen: set[int] = set()
        waiting = [0]
        while waiting:
            i = waiting.pop()
            if i not in seen:
                seen.add(i)
                waiting.extend(self.calls[i])
        return seen


@st.composite
def projects(draw: st.DrawFn) -> Project:
    size = draw(st.integers(3, 9))
    index = st.integers(0, size - 1)
    calls = draw(st.lists(st.sets(index, max_size=3), min_size=size, max_size=size))
    uses = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    return Project(calls, [10, 20, 30, 40], uses)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(projects(), st.data())
def test_exactly_the_reachable_edits_change_the_digest(project: Project, data: st.DataObject) -> None:
    """Whatever calls whatever, in cycles too: a reachable edit misses, any other one hits."""
    before, reached = project.code(others_first=data.draw(st.booleans())), project.reached()
    i = data.draw(st.integers(0, len(project.calls) - 1))
    edit: Any = data.draw(st.sampled_from(["constant", "call", "cosmetic"]))
    matters = i in reached
    if edit == "constant":
        constant = project.uses[i]
        project.constants[constant] += 1
        matters = constant in {project.uses[j] for j in reached}
    elif edit == "call":
        project.calls[i] = project.calls[i] ^ {data.draw(st.integers(0, len(project.calls) - 1))}
    else:
        project.cosmetic.add(i)
        matters = False
    after = project.code()
    assert (after.digest != before.digest) == matters
    assert bool(explain(before, after)) == matters
