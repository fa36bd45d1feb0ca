"""One decision, asked twice: the run does what the plan said, over random graphs and edits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from ml_platform.engine import Dag, Plan, dag, either, map_over, when
from tests.engine.runs import Ran, Runner, verdicts
from tests.engine.small import add, count_to, is_even, parity, total

pytestmark = pytest.mark.slow

KINDS = ("add", "parity", "total", "always", "branch", "mapped")
shapes = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5
)
constants = st.lists(st.integers(0, 3), min_size=5, max_size=5)
always = add.with_options(cache=False, name="always")


def declared(shape: Iterable[tuple[str, int, int]]) -> Dag[..., Any]:
    """A dag of these nodes: each of a kind, on two of the nodes before it, and a constant of its own."""

    @dag(name="random")
    def random_dag(values: list[int]) -> Any:
        found: list[Any] = [values[0]]
        for (kind, first, second), value in zip(shape, values, strict=False):
            one, two = found[first % len(found)], found[second % len(found)]
            if kind == "branch":
                with when(is_even(one)) as even:
                    yes = add(two, value)
                with even.otherwise():
                    no = parity(two)
                found.append(either(yes, no))
            else:
                found.append(_node(kind, one, two, value))
        return found

    return random_dag


def _node(kind: str, one: Any, two: Any, value: int) -> Any:
    if kind == "mapped":
        return total(map_over(add, count_to(parity(one)), y=two))
    if kind == "parity":
        return parity(one)
    if kind == "total":
        return total([one, value, two])
    return (always if kind == "always" else add)(one, value)


def evaluated(shape: Iterable[tuple[str, int, int]], values: list[int]) -> list[int]:
    """What it should give: the same in plain Python."""
    found = [values[0]]
    for (kind, first, second), value in zip(shape, values, strict=False):
        one, two = found[first % len(found)], found[second % len(found)]
        found.append(
            {
                "branch": two + value if one % 2 == 0 else two % 2,
                "mapped": sum(item + two for item in range(one % 2)),
                "parity": one % 2,
                "total": one + value + two,
            }.get(kind, one + value)
        )
    return found


POSSIBLE = {
    "cached": {"cached"},
    "run": {"done"},
    "maybe": {"done", "cached", "skipped"},
    "skipped": {"skipped"},
}


def check_against(plan: Plan, ran: Ran) -> None:
    """Every node became what the plan said. Of equal calls one runs, and the others take its result."""
    made = {(node["own"], node["inputs"]) for node in ran.nodes.values() if node["state"] == "completed"}
    for name, state in ran.states.items():
        planned = next((node for node in plan.nodes if node.name == name), None)
        verdict = "maybe" if planned is None else planned.verdict
        record = ran.nodes.get(name, {})  # a mapped node has none: its items have
        twin = state == "cached" and (record.get("own"), record.get("inputs")) in made
        assert state in POSSIBLE[verdict] or (verdict == "run" and twin), (name, verdict, state)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(shape=shapes, rounds=st.lists(constants, min_size=2, max_size=3))
def test_the_run_does_what_the_plan_said(
    run: Runner,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    shape: list[tuple[str, int, int]],
    rounds: list[list[int]],
) -> None:
    """Over random graphs and edits of their parameters; the outputs are those of plain Python."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path_factory.mktemp("home")))
    drawn = declared(shape)
    for values in rounds:
        plan = drawn.plan(values=values)
        ran = run(drawn, values=values)
        assert ran.output == evaluated(shape, values)
        check_against(plan, ran)
    if not any(kind == "always" for kind, *_ in shape):
        assert set(verdicts(drawn.plan(values=rounds[-1])).values()) <= {"cached", "skipped"}
        assert run(drawn, values=rounds[-1]).executed == set()
