"""The lint: what a promise cannot refuse by itself is refused where the dag is decorated, with the line."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from ml_platform.engine import dag, either, map_over, task, when
from ml_platform.errors import GraphError
from tests.engine import small
from tests.engine.small import add

NAMES: dict[str, Any] = {
    **{name: getattr(small, name) for name in ("add", "both", "is_even", "number", "total")},
    "small": small,
    "dag": dag,
    "when": when,
    "either": either,
    "map_over": map_over,
}
_files = count()


@dag
def inside(n: int) -> int:
    return add(n)


NAMES["inside"] = inside


def function(*body: str) -> Callable[..., Any]:
    """A dag's function with this body, whose source can be found; its body begins in line 2."""
    source = "\n".join(["def declared(n: int = 1):", *(f"    {line}" for line in body)]) + "\n"
    file = f"<dag {next(_files)}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    names = dict(NAMES)
    exec(compile(source, file, "exec"), names)
    found: Callable[..., Any] = names["declared"]
    return found


REFUSED = {
    "is None": (
        "`is` compares the promise",
        ["x = add(n)", "if x is None:", "    return add(1)", "return x"],
        3,
    ),
    "is not None": ("`is` compares the promise", ["return add(n) is not None"], 2),
    "is, of a field": ("`is` compares the promise", ["x = number(n)", "y = x.even is True"], 3),
    "is, of an item": ("`is` compares the promise", ["x = both(n)", "y = x[0] is None"], 3),
    "is, unpacked": ("`is` compares the promise", ["a, b = both(n)", "c = b is None"], 3),
    "is, of either": ("`is` compares the promise", ["x = either(add(n), add(2))", "y = x is None"], 3),
    "is, walrus": ("`is` compares the promise", ["if (x := add(n)) is not None:", "    add(x)"], 2),
    "is, annotated": ("`is` compares the promise", ["x: int = add(n)", "y = None is x"], 3),
    "isinstance": (r"isinstance\(…\) is no task", ["x = add(n)", "y = isinstance(x, int)"], 3),
    "f-string": ("an f-string holds the promise", ["x = add(n)", "y = f'model-{x}'"], 3),
    "f-string of a field": ("an f-string holds the promise", ["y = f'{number(n).value:>3}'"], 2),
    "str": (r"str\(…\) is no task", ["x = add(n)", "y = str(x)"], 3),
    "print": (r"print\(…\) is no task", ["print(add(n))"], 2),
    "a function": (r"sorted\(…\) is no task", ["return sorted(total([add(n)]))"], 2),
    "a keyword": (r"max\(…\) is no task", ["return max(1, 2, key=add(n))"], 2),
    "a module's": (r"small.lines_of\(…\) is no task", ["return small.lines_of(add(n))"], 2),
    "a class": (r"small.Number\(…\) is no task", ["return small.Number(value=add(n))"], 2),
    "a dag's": ("`is` compares the promise", ["x = inside(n)", "y = x is None"], 3),
    "of many": ("`is` compares", ["xs = map_over(add, [n])", "for x in xs:", "    y = x is None"], 4),
    "a variant's": ("`is` compares the promise", ["x = add.with_options(name='b')(n)", "y = x is None"], 3),
    "match": ("`match` looks at the promise", ["match add(n):", "    case None:", "        return 1"], 2),
    "in a comprehension": ("an f-string holds", ["x = add(n)", "return [f'{x}' for _ in range(3)]"], 3),
    "in a function inside": ("an f-string holds", ["x = add(n)", "def g():", "    return f'{x}'"], 4),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_silently_be_wrong_is_refused_with_its_line(name: str) -> None:
    said, body, line = REFUSED[name]
    with pytest.raises(GraphError, match=said) as caught:
        dag(function(*body))
    assert "dag declared uses a promise as a value" in str(caught.value)
    assert f":{line}: " in str(caught.value)
    assert caught.value.exit_code == 2


FINE = {
    "containers": ["x = add(n)", "return total(list((x, x))), dict(a=x), tuple([x]), [x], {'a': (x,)}"],
    "append": ["found = []", "found.append(add(n))", "found.extend([add(1)])", "return total(found)"],
    "zip of static lists": ["return [add(x, y) for x, y in zip((add(n), add(2)), [3, 4], strict=True)]"],
    "enumerate and reversed": ["return [add(x, at) for at, x in enumerate(reversed([add(n)]))]"],
    "a variant": ["x = add.with_options(retries=1)(n)", "return add(x)"],
    "a variant with a name of its own": ["twice = add.with_options(name='twice')", "return twice(add(n))"],
    "a comprehension": ["return total([add(x) for x in (add(n), add(2))])"],
    "a field": ["return add(number(n).value)"],
    "unpacking": ["one, _ = both(n)", "return add(one)"],
    "the words of a dag": [
        "with when(is_even(n)):",
        "    x = add(n)",
        "return map_over(add, [either(x, add(1))])",
    ],
    "plain values": ["return add(n if n is not None else int(str(max(n, 1))))"],
    "a name bound anew": ["x = add(n)", "y = add(x)", "x = None", "return y if x is None else x"],
    "a task of a module": ["return small.add(small.number(n).value)"],
    "a dag in it": ["return inner(add(n))"],
}


@pytest.mark.parametrize("name", FINE)
def test_what_is_fine_passes_and_declares(name: str) -> None:
    NAMES["inner"] = dag(function("return add(n)"))
    assert dag(function(*FINE[name])).graph().nodes


def test_all_findings_come_at_once() -> None:
    with pytest.raises(GraphError) as caught:
        dag(function("x = add(n)", "print(x)", "y = f'{x}'", "return x is None"))
    assert [line for line in (3, 4, 5) if f":{line}: " in str(caught.value)] == [3, 4, 5]


def test_the_line_is_that_of_the_file() -> None:
    """Decorators stand above the function, and it may be indented."""
    with pytest.raises(GraphError) as caught:

        @dag(
            name="decorated",
        )
        def decorated(n: int = 1) -> str:
            one = add(n)
            return f"{one}"

    source = inspect.getsource(test_the_line_is_that_of_the_file).splitlines()
    offset = next(at for at, line in enumerate(source) if 'return f"{one}"' in line)
    first = test_the_line_is_that_of_the_file.__code__.co_firstlineno
    assert f"test_lint.py:{first + offset}: " in str(caught.value)


def test_a_function_without_source_is_let_through() -> None:
    """As in a REPL; the promise itself still refuses what it can."""
    names = dict(NAMES)
    exec("def declared(n: int = 1):\n    return f'{add(n)}'", names)
    with pytest.raises(GraphError, match="a promise was used as a value"):
        dag(names["declared"]).graph()


def test_only_tasks_of_the_engine_give_promises() -> None:
    """A plain function of the user's may be asked anything."""

    def names(n: int) -> list[str] | None:
        return [str(n)]

    @task
    def spell(words: list[str]) -> str:
        return " ".join(words)

    @dag
    def fine(n: int = 1) -> str:
        found = names(n)
        return spell(found if found is not None else [f"{found}"])

    assert len(fine.graph().nodes) == 1
