"""Branches, fan-out, several outputs, dags in dags, options per call: each declared, and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ml_platform.engine import Dag, dag, either, map_over, task, when
from ml_platform.errors import GraphError
from tests.engine.runs import Runner
from tests.engine.small import (
    Pair,
    add,
    both,
    choose,
    count_to,
    halves,
    is_even,
    lines_of,
    note,
    number,
    pair,
    say,
    spell,
    total,
)

pytestmark = pytest.mark.slow


@dag
def only_even(n: int = 2) -> int | None:
    with when(is_even(n)):
        return add(n, 10)


@dag
def decided(n: int = 2) -> list[Any]:
    with when(choose(n), "promote") as promoted:
        new = add(n, 100)
    with promoted.otherwise():
        old = add(n, -100)
    return [add(either(new, old)), new, old]


@dag
def nested(n: int = 2, m: int = 2) -> list[int | None]:
    with when(is_even(n)):
        outer = add(n)
        with when(is_even(m)) as inner:
            deep = add(outer, m)
        with inner.otherwise():
            shallow = add(outer)
        joined = add(either(deep, shallow), 1000)
    return [outer, deep, shallow, joined]


# ── Branches ─────────────────────────────────────────────────────────────────────────────────────


def test_a_branch_runs_only_when_its_promise_is_true(run: Runner) -> None:
    taken, left = run(only_even, n=2), run(only_even, n=3)
    assert taken.output == 12
    assert left.output is None
    assert left.states["add"] == "skipped"
    assert left.messages["add"] == "not taken: only if is_even is True"


def test_a_branch_on_values_and_the_other_case(run: Runner) -> None:
    """Exactly one of the two runs, and `either` is what it gave."""
    assert run(decided, n=11).output == [112, 111, None]
    assert run(decided, n=5).output == [-94, None, -95]


@pytest.mark.parametrize(
    ("n", "m", "expected"),
    [(2, 2, [3, 5, None, 1005]), (2, 3, [3, None, 4, 1004]), (3, 2, [None] * 4), (3, 3, [None] * 4)],
)
def test_branches_in_branches(run: Runner, n: int, m: int, expected: list[int | None]) -> None:
    """What stands in the inner block needs both conditions; the other case stays inside the outer one."""
    assert run(nested, n=n, m=m).output == expected


def test_what_comes_out_of_a_branch_may_be_none() -> None:
    """A task outside of the block must take None; `either` of both cases never is."""

    @dag
    def careless(n: int = 1) -> int:
        with when(is_even(n)):
            inside = add(n)
            fine = add(inside)
        return total([add(inside), add(fine)])

    with pytest.raises(GraphError) as caught:
        careless.graph()
    text = str(caught.value)
    assert "2 arguments do not fit" in text
    assert "add-3.x (test_declare.py:" in text
    assert "wanted int, got int | None from add" in text


def test_a_task_that_takes_none_gets_it(run: Runner) -> None:
    @dag
    def careful(n: int = 1) -> str:
        with when(is_even(n)):
            inside = add(n)
        return say(inside)

    assert run(careful, n=2).output == "3"
    assert run(careful, n=1).output == "nothing"


def test_either_of_two_conditions_may_be_none() -> None:
    """Nothing says that one of two unrelated branches runs."""

    @dag
    def unrelated(n: int = 1) -> int:
        with when(is_even(n)):
            one = add(n)
        with when(choose(n), "promote"):
            two = add(n)
        return add(either(one, two))

    with pytest.raises(GraphError, match=r"wanted int, got int \| None from add or add-2"):
        unrelated.graph()


def test_the_graph_says_when_a_node_runs() -> None:
    graph = decided.graph()
    assert [str(condition) for condition in graph["add"].conditions] == ["choose is 'promote'"]
    assert [str(condition) for condition in graph["add-2"].conditions] == ["choose is not 'promote'"]
    assert graph["add"].parents == ("choose",)
    assert "<i>when choose is 'promote'</i>" in graph.to_mermaid()


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda p: when(3), r"when\(…\) wants a promise \(test_declare.py:\d+\)"),
        (lambda p: when(p), r"wants a promise of a bool, or the values to look for \(test_declare.py:\d+\)"),
        (lambda p: either(p), r"wants two or more promises of tasks \(test_declare.py:\d+\)"),
        (lambda p: either(p, 3), r"wants two or more promises of tasks \(test_declare.py:\d+\)"),
        (lambda p: either(p, p).value, r"part 'value' of either\(…\) \(test_declare.py:\d+\)"),
        (lambda p: map_over(len, [p]), r"wants a task first \(test_declare.py:\d+\)"),
        (lambda p: map_over(add, 3), r"wants a list, or the promise of one \(test_declare.py:\d+\)"),
        (lambda p: map_over(add, p), r"wants a list, or the promise of one \(test_declare.py:\d+\)"),
    ],
)
def test_misuse_names_the_users_line(use: Any, said: str) -> None:
    @dag
    def misused(n: int = 1) -> None:
        do = use
        with do(number(n)):
            add(n)

    with pytest.raises(GraphError, match=said):
        misused.graph()


def test_the_words_of_a_dag_need_a_dag() -> None:
    for words in (lambda: when(True).__enter__(), lambda: either(1, 2), lambda: map_over(add, [1])):
        with pytest.raises(GraphError, match="outside of a @dag"):
            words()


# ── Fan-out and fan-in ───────────────────────────────────────────────────────────────────────────


def test_a_list_with_promises_inside_is_mapped_over(run: Runner) -> None:
    @dag
    def fan(n: int = 3) -> int:
        return total(map_over(add, [n, number(10).value, add(n)], y=number(100).value))

    assert [node.name for node in fan.graph().nodes if node.task is add] == ["add", "add-2", "add-3", "add-4"]
    assert run(fan, n=3).output == 103 + 110 + 104


@dag
def expanded(n: int = 3) -> tuple[int, list[int]]:
    grown = map_over(add, count_to(n), y=10)
    return total(map_over(add, grown)), grown


def test_a_promised_list_is_expanded_when_it_is_known(run: Runner) -> None:
    """One node in the graph; in the run one for each item, and what maps over that maps over each."""
    assert [node.name for node in expanded.graph().nodes] == ["count_to", "add", "add-2", "total"]
    ran = run(expanded, n=3)
    assert ran.output == (36, [10, 11, 12])
    assert {"add[0]", "add[1]", "add[2]", "add-2[0]", "add-2[1]", "add-2[2]"} <= ran.executed


def test_an_empty_list_gives_an_empty_list(run: Runner) -> None:
    ran = run(expanded, n=0)
    assert ran.output == (0, [])
    assert ran.executed == {"count_to", "total"}


def test_a_field_that_is_a_list_is_mapped_over(run: Runner) -> None:
    @dag
    def of_fields(n: int = 2) -> int:
        cut = halves(n)
        return add(total(map_over(add, cut.low)), total(map_over(add, cut.high)))

    assert run(of_fields, n=2).output == 10


def test_items_and_results_of_a_mapped_task_are_typed() -> None:
    @dag
    def wrong(n: int = 2) -> str:
        return spell(map_over(spell, count_to(n)))

    with pytest.raises(GraphError) as caught:
        wrong.graph()
    assert "spell.word" in str(caught.value)
    assert "wanted list[str], got list[int] from count_to" in str(caught.value)
    assert "wanted str, got list[str] from spell" in str(caught.value)


def test_a_mapped_branch_that_is_not_taken_gives_nothing(run: Runner) -> None:
    @dag
    def maybe_mapped(n: int = 3) -> list[int] | None:
        items = count_to(n)
        with when(is_even(n)):
            return map_over(add, items)

    assert run(maybe_mapped, n=2).output == [1, 2]
    assert run(maybe_mapped, n=3).output is None
    assert run(maybe_mapped, n=3).output is None, "and from stored results"


# ── Several outputs ──────────────────────────────────────────────────────────────────────────────


def test_tuples_named_tuples_and_models_come_apart(run: Runner) -> None:
    @dag
    def apart(n: int = 3) -> list[Any]:
        one, word = both(n)
        left, right = pair(n)
        named = pair(n)
        return [
            add(one),
            spell(word),
            add(left),
            spell(right),
            add(named.left),
            spell(named[-1]),
            number(n).value,
        ]

    assert run(apart, n=12).output == [13, "1-2", 13, "1-2", 13, "1-2", 12]


def test_a_named_tuple_comes_back_from_the_store_as_one(run: Runner) -> None:
    @dag
    def named(n: int = 3) -> Any:
        return pair(n)

    first, second = run(named), run(named)
    assert second.states == {"pair": "cached"}
    assert first.output == second.output == Pair(3, "3")
    assert isinstance(second.output, Pair)


def test_unpacking_knows_how_many_there_are() -> None:
    @dag
    def three(n: int = 3) -> int:
        one, _, _ = both(n)
        return add(one)

    with pytest.raises(ValueError, match="not enough values to unpack"):
        three.graph()


# ── Dags in dags ─────────────────────────────────────────────────────────────────────────────────


@dag
def inner(n: int, by: int = 5) -> dict[str, Any]:
    grown = add(n, by)
    return {"grown": grown, "twice": [add(grown, grown)]}


@dag
def outer(n: int = 1) -> list[Any]:
    one, two = inner(n), inner(add(n), by=7)
    with when(is_even(n)):
        three = inner(one["grown"])
    return [one["grown"], *two["twice"], three["twice"]]


def test_a_dag_in_a_dag_is_part_of_it(run: Runner) -> None:
    """Its nodes carry its name, its return value is what it returned, its branch is the caller's."""
    names = [node.name for node in outer.graph().nodes]
    assert names == [
        *("inner.add", "inner.add-2", "add", "inner-2.add", "inner-2.add-2"),
        *("is_even", "inner-3.add", "inner-3.add-2"),
    ]
    assert run(outer, n=2).output == [7, 20, [24]]
    assert run(outer, n=1).output == [6, 18, [None]]


def test_a_dag_alone_and_inside_another_share_results(run: Runner) -> None:
    """A result is found by what it is made of, whatever the node is called."""

    @dag
    def around(n: int = 1) -> Any:
        return inner(n)

    run(inner, n=1)
    assert set(run(around, n=1).states.values()) == {"cached"}


# ── Options per call ─────────────────────────────────────────────────────────────────────────────


def test_a_call_has_options_of_its_own(run: Runner, tmp_path: Path) -> None:
    """A name and retries for this call alone; the other keeps its own."""

    @task
    def breaks(file: str, until: int) -> int:
        tried = lines_of(Path(file)) + 1
        note.fn(file)
        if tried < until:
            raise ConnectionError("not yet")
        return tried

    @dag
    def options(file: str) -> int:
        return breaks.with_options(name="patient", retries=2)(file, 3)

    @dag
    def none(file: str) -> int:
        return breaks(file, 2)

    ran = run(options, file=str(tmp_path / "a"))
    assert ran.output == 3
    assert ran.states == {"patient": "done"}
    assert isinstance(run(none, file=str(tmp_path / "b")).error, ConnectionError)


def test_options_of_the_engine_go_with_a_call_too(run: Runner) -> None:
    @dag
    def uncached(n: int = 1) -> list[int]:
        return [add(n), add.with_options(cache=False, name="always")(n)]

    run(uncached)
    assert run(uncached).states == {"add": "cached", "always": "done"}


def test_every_dag_here_declares_the_same_twice() -> None:
    dags: list[Dag[..., Any]] = [only_even, decided, nested, expanded, inner, outer]
    for each in dags:
        parameters = {"n": 1} if each is inner else {}
        assert each.graph(**parameters) == each.graph(**parameters)


def test_a_light_task_takes_nothing_that_a_task_run_is_for() -> None:
    async def waiting(n: int) -> int:
        return n

    for refused, options, said in ((waiting, {}, "an async function"), (double, {"retries": 2}, "retries")):
        with pytest.raises(GraphError, match="cannot be light") as caught:
            task(light=True, **options)(refused)  # type: ignore[arg-type]
        assert f"got: {said}" in str(caught.value)
    light = task(light=True)(double)
    assert light.with_options(name="other").light


def test_whole_names_parameters() -> None:
    with pytest.raises(GraphError, match=r"wanted: some of x\n +got: y$"):
        task(whole=["y"])(double)
    assert task(whole=["x"])(double).with_options(name="other").whole == ("x",)


def double(x: int) -> int:
    return 2 * x
