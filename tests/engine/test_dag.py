"""Declaring: what a dag's function may do with promises, and what is checked before anything runs."""

from __future__ import annotations

import random
from typing import Any

import cloudpickle
import numpy as np
import prefect
import pytest
from pydantic import BaseModel

from ml_platform.engine import Graph, dag, task
from ml_platform.errors import GraphError
from ml_platform.specs.resources import Spark, SparkSpec


class Halves(BaseModel):
    left: int
    right: str


@task
def cut(n: int) -> Halves:
    return Halves(left=n, right=str(n))


@task
def add(x: int, y: int = 1) -> int:
    return x + y


@task
def total(values: list[int]) -> int:
    return sum(values)


@task
def count(table: str, spark: object = Spark(conf={"spark.sql.ansi.enabled": "true"})) -> int:
    return len(table)


@dag
def arithmetic(n: int = 3) -> int:
    """Cut a number, add, sum.

    Args:
        n: Where to begin.
    """
    halves = cut(n)
    return total([add(halves.left), add(halves.left, 5), count(halves.right)])


def test_a_dag_is_a_prefect_flow_and_a_task_a_prefect_task() -> None:
    assert isinstance(arithmetic, prefect.Flow)
    assert isinstance(add, prefect.Task)


def test_declaring_leaves_a_graph_and_runs_nothing() -> None:
    """Edges come from promises, per parameter; two calls of one task are two nodes."""
    graph = arithmetic.graph(n=4)
    assert [node.name for node in graph.nodes] == ["cut", "add", "add-2", "count", "total"]
    assert graph.edges == (
        ("cut", "add", "x"),
        ("cut", "add-2", "x"),
        ("cut", "count", "table"),
        ("add", "total", "values"),
        ("add-2", "total", "values"),
        ("count", "total", "values"),
    )
    assert graph["add-2"].arguments["y"] == 5
    assert graph["count"].resources == {"spark": SparkSpec(conf={"spark.sql.ansi.enabled": "true"})}
    assert graph["cut"].where.startswith("test_dag.py:")


def test_equal_parameters_declare_equal_graphs() -> None:
    assert arithmetic.graph(n=4) == arithmetic.graph(n=4)
    assert arithmetic.graph(n=4) != arithmetic.graph(n=5)


def test_a_graph_prints_as_mermaid() -> None:
    text = arithmetic.graph().to_mermaid()
    assert text.startswith("flowchart TD")
    assert "cut -->|table| count" in text
    assert "<i>Spark</i>" in text


@pytest.mark.parametrize(
    "use",
    [
        lambda p: 1 if p else 2,
        lambda p: p + 1,
        lambda p: 2 * p,
        lambda p: p == 3,
        lambda p: p < 3,
        lambda p: len(p),
        lambda p: list(p),
        lambda p: p[0],
        lambda p: f"{p}",
        lambda p: str(p),
        lambda p: int(p),
        lambda p: 3 in p,
        lambda p: add({p: 1}),
        lambda p: add({p}),
    ],
)
def test_a_promise_is_not_a_value(use: object) -> None:
    """A dag that branched on a promise would declare something else than it runs."""

    @dag
    def uses_it(n: int = 1) -> int:
        do = use  # a name of its own: the lint cannot know what it is
        return do(add(n))  # type: ignore[operator]

    with pytest.raises(GraphError, match=r"a promise was used as a value in a dag \(test_dag.py:\d+\)"):
        uses_it.graph()


def test_an_unknown_field_of_a_promise_names_the_known_ones() -> None:
    @dag
    def misspelt(n: int = 1) -> int:
        return add(cut(n).lift)

    with pytest.raises(GraphError, match="fields: left, right"):
        misspelt.graph()


def test_all_wrong_edges_are_named_at_once() -> None:
    """Node, parameter, the user's line, wanted and got; for promises, their fields and constants."""

    @dag
    def wrong(n: int = 1) -> int:
        halves = cut(n)
        return total([add(halves.right), add(halves, "five"), halves.right])  # type: ignore[list-item, arg-type]

    with pytest.raises(GraphError) as caught:
        wrong.graph()
    text = str(caught.value)
    assert "4 arguments do not fit" in text
    assert "add.x (test_dag.py:" in text
    assert "wanted int, got str from cut.right" in text
    assert "wanted int, got Halves from cut" in text
    assert "add-2.y" in text
    assert "got 'five'" in text
    assert "total.values" in text
    assert "got list[int | str]" in text
    assert caught.value.exit_code == 2


def test_a_dag_that_moves_is_refused() -> None:
    @dag
    def moves(n: int = 1) -> int:
        return add(n, random.randrange(10**9))

    with pytest.raises(GraphError, match="declares another graph each time"):
        moves.graph()


def test_an_array_made_in_a_dag_is_compared_by_its_content() -> None:
    @task
    def rows_of(table: Any) -> int:
        return len(table)

    @dag
    def steady() -> int:
        return rows_of(np.zeros(3))

    @dag
    def moves() -> int:
        return rows_of(np.array([random.random() for _ in range(3)]))

    assert len(steady.graph().nodes) == 1
    with pytest.raises(GraphError, match="two traces differ at rows_of"):
        moves.graph()


def test_a_task_without_annotations_is_refused_where_it_is_written() -> None:
    with pytest.raises(GraphError, match="none for x, return"):

        @task
        def bare(x):  # type: ignore[no-untyped-def]
            return x


def test_what_cannot_work_is_refused_with_a_hint() -> None:
    with pytest.raises(GraphError, match="make its tasks async"):

        @dag
        async def asynchronous() -> None: ...

    with pytest.raises(GraphError, match="runs tasks side by side itself"):
        dag(task_runner=object())(lambda: None)

    @dag
    def submits(n: int = 1) -> int:
        return add.submit(n)  # type: ignore[return-value]

    with pytest.raises(GraphError, match=r"call it: add\(…\)"):
        submits.graph()


def test_options_keep_the_kind() -> None:
    """Prefect's own `with_options` of a flow builds a plain Flow, which would lose the graph."""
    named = arithmetic.with_options(name="other", retries=2)
    assert named.name == "other"
    assert named.retries == 2
    assert isinstance(named.graph(), Graph)
    assert add.with_options(retries=3).retries == 3
    assert type(add.with_options(retries=3)) is type(add)


def test_a_dag_pickles_by_its_name() -> None:
    assert cloudpickle.loads(cloudpickle.dumps(arithmetic)) is arithmetic


def test_the_parameter_schema_comes_from_the_users_signature() -> None:
    """The form in Prefect's UI: types, defaults, and descriptions of the docstring."""
    schema = arithmetic.parameters.model_dump()["properties"]["n"]
    assert schema["default"] == 3
    assert schema["type"] == "integer"
    assert schema["description"] == "Where to begin."
