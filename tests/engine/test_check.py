"""What is known before anything runs: types of every edge, and contracts as far as they are declared."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, Field

from ml_platform.engine import dag, either, map_over, task, when
from ml_platform.engine.check import preflight_faults, refuse
from ml_platform.errors import DataError, GraphError, SpecError
from ml_platform.resources.leases import Leases, Scope
from ml_platform.resources.placement import load_placement
from ml_platform.specs.contracts import Column, Contract
from ml_platform.specs.references import Dataset
from tests.engine.runs import Runner
from tests.engine.small import Choice, Number, add, choose, count_to, is_even, number, spell, total

T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    content: T


class Bigger(Number):
    more: int = 0


AGE = Column(name="age", type="float", nullable=False)
NAME = Column(name="name", type="string")
Aged = Annotated[Dataset, Contract(columns=(AGE,))]
Named = Annotated[Dataset, Contract(columns=(AGE, NAME))]


def dataset(*columns: Column) -> Dataset:
    return Dataset(
        uri="file:///nowhere", contract=Contract(columns=columns), rows=1, bytes=1, fingerprint="f" * 64
    )


class Tables(BaseModel):
    aged: Aged
    named: Annotated[Dataset | None, Contract(columns=(NAME,))] = None


@task
def box(n: int) -> Box[int]:
    return Box[int](content=n)


@task
def open_text(box: Box[str]) -> str:
    return box.content


@task
def open_number(box: Box[int]) -> int:
    return box.content


@task
def grow(n: int) -> Bigger:
    return Bigger(value=n)


@task
def value_of(number: Number) -> int:
    return number.value


@task
def more_of(number: Bigger) -> int:
    return number.more


@task
def perhaps(n: int) -> int | None:
    return n or None


@task
def act(choice: Choice) -> str:
    return choice


@task
def sums(table: dict[str, list[float]], at: int | str = 0) -> float:
    return 0.0


@task
def load(names: list[str]) -> Dataset:
    """A data set whose columns the plan cannot know."""
    types: dict[str, Any] = {"age": "float", "name": "string"}
    return dataset(*(Column(name=name, type=types[name], nullable=False) for name in names))


@task
def load_aged(names: list[str]) -> Aged:
    return dataset(*(Column(name=name, type="float", nullable=False) for name in names))


@task
def load_named(n: int) -> Named:
    return dataset(AGE, NAME)


@task
def tables(n: int) -> Tables:
    return Tables(aged=dataset(AGE), named=dataset(NAME))


@task
def mean_age(table: Aged) -> int:
    return len(table.contract.columns)


@task
def mean_age_of_any(table: Aged | None, others: list[Aged] | None = None) -> int:
    return 0


def faults(function: Any, **parameters: Any) -> str:
    """What the graph is refused for."""
    with pytest.raises(GraphError) as caught:
        dag(function).graph(**parameters)
    return str(caught.value)


# ── Types ────────────────────────────────────────────────────────────────────────────────────────


def test_what_fits_is_let_through() -> None:
    @dag
    def fits(n: int = 1) -> Any:
        open_number(box(n))
        value_of(grow(n))
        act(choose(n))
        act("hold")
        mixed: Any = {"a": [add(n), 2.5], "b": [], "c": [1]}
        sums(mixed, at="x")
        sums({}, at=add(n))
        return total([*[add(n)], *[]])

    assert len(fits.graph().nodes) == 13


def test_generics_subclasses_optionals_and_literals_are_told_apart() -> None:
    def wrong(n: int = 1) -> None:
        open_text(box(n))  # type: ignore[arg-type]
        more_of(number(n))  # type: ignore[arg-type]
        add(perhaps(n))  # type: ignore[arg-type]
        act(spell("x"))  # type: ignore[arg-type]
        act("sell")  # type: ignore[arg-type]
        sums({"a": [add(n), spell("x")]})  # type: ignore[list-item]
        total([1, "two"])  # type: ignore[list-item]

    text = faults(wrong)
    assert "7 arguments do not fit" in text
    assert "wanted Box[str], got Box[int] from box" in text
    assert "wanted Bigger, got Number from number" in text
    assert "wanted int, got int | None from perhaps" in text
    assert "wanted Literal['promote', 'hold'], got str from spell" in text
    assert "got 'sell'" in text
    assert "sums.table" in text
    assert "wanted list[int], got [1, 'two']" in text


def test_each_fault_names_node_parameter_and_the_users_line() -> None:
    def wrong(n: int = 1) -> None:
        add(n, y="one")  # type: ignore[arg-type]
        spell(add(n))  # type: ignore[arg-type]

    source, first = inspect.getsourcelines(wrong)
    text = faults(wrong)
    assert f"add.y (test_check.py:{first + 1}): wanted int, got 'one'" in text
    assert f"spell.word (test_check.py:{first + 2}): wanted str, got int from add-2" in text
    assert source


def test_a_call_that_does_not_fit_its_signature_is_refused() -> None:
    def wrong(n: int = 1) -> None:
        add(n, z=1)  # type: ignore[call-arg]

    first = inspect.getsourcelines(wrong)[1]
    text = faults(wrong)
    assert f"call of task 'add' does not fit its signature (test_check.py:{first + 1})" in text
    assert "wanted: add(x: 'int', y: 'int' = 1)" in text
    assert "unexpected keyword argument 'z'" in text


def test_constants_among_promises_are_checked_like_promises() -> None:
    """`Literal` and the inner types of containers count for what the user wrote, too."""

    @task
    def acts(choices: list[Choice]) -> int:
        return len(choices)

    @dag
    def fine(n: int = 1) -> int:
        return acts([choose(n), "hold"])

    def wrong(n: int = 1) -> int:
        return acts([choose(n), "sell"])  # type: ignore[list-item]

    assert fine.graph()
    assert "got list[Literal['promote', 'hold'] | Literal['sell']]" in faults(wrong)


def test_constraints_of_pydantic_hold_for_constants() -> None:
    @task
    def share(part: Annotated[float, Field(gt=0, le=1)]) -> float:
        return part

    def wrong(n: int = 1) -> None:
        share(1.5)

    assert "share.part" in faults(wrong)


def test_items_of_a_mapped_task_are_checked() -> None:
    def wrong(n: int = 1) -> None:
        map_over(spell, [add(n), "x"])
        map_over(spell, count_to(n))

    text = faults(wrong)
    assert "wanted str, got int from add" in text
    assert "wanted list[str], got list[int] from count_to" in text


def test_branches_of_different_types_make_a_union() -> None:
    def wrong(n: int = 1) -> None:
        with when(is_even(n)) as even:
            one = add(n)
        with even.otherwise():
            two = spell("x")
        add(either(one, two))

    assert "wanted int, got int | str from add or spell" in faults(wrong)


# ── Contracts ────────────────────────────────────────────────────────────────────────────────────


def test_a_contract_that_is_promised_and_needed_fits() -> None:
    """What is needed is a part of what is produced; through a field of a model as well."""

    @dag
    def fits(n: int = 1) -> Any:
        parts = tables(n)
        mean_age(parts.aged)
        mean_age_of_any(load_named(n), [load_named(n)])
        return mean_age(load_named(n))

    assert len(fits.graph().nodes) == 7


PRODUCED: dict[str, tuple[Column, str]] = {
    "missing": (NAME, "column 'age' (float) is missing"),
    "nearest": (Column(name="aeg", type="float"), "did you mean 'aeg'?"),
    "type": (Column(name="age", type="string", nullable=False), "column 'age' is string, wanted float"),
    "nullable": (Column(name="age", type="float"), "column 'age' may be null, wanted values only"),
}


@pytest.mark.parametrize("name", PRODUCED)
def test_a_broken_contract_is_named_before_anything_runs(name: str) -> None:
    column, said = PRODUCED[name]

    def produce(n: int) -> Dataset:
        raise AssertionError("must not run")

    produce.__annotations__["return"] = Annotated[Dataset, Contract(columns=(column,))]
    produces = task(produce)

    def wrong(n: int = 1) -> int:
        made = produces(n)
        return mean_age(made)

    text = faults(wrong)
    assert "mean_age.table (test_check.py:" in text
    assert "got Dataset from produce: " in text
    assert said in text


def test_a_contract_counts_inside_of_unions_and_lists() -> None:
    def wrong(n: int = 1) -> None:
        table = tables(n).named
        mean_age_of_any(table)
        with when(is_even(n)):
            inside = load_only_named(n)
        mean_age_of_any(inside)
        mean_age_of_any(load_named(n), [load_named(n), load_only_named(n)])
        mean_age_of_any(load_named(n), [tables(n).aged, dataset(NAME)])

    text = faults(wrong)
    assert "mean_age_of_any.table" in text
    assert "mean_age_of_any-2.table" in text
    assert "mean_age_of_any-3.others" in text
    assert "mean_age_of_any-4.others" in text
    assert text.count("column 'age' (float) is missing") == 4


def test_a_constant_data_set_is_held_to_the_contract_too() -> None:
    def wrong(n: int = 1) -> int:
        return mean_age(dataset(NAME))

    assert "column 'age' (float) is missing" in faults(wrong)


@task
def load_only_named(n: int) -> Annotated[Dataset, Contract(columns=(NAME,))]:
    return dataset(NAME)


@dag
def at_the_border(names: list[str]) -> int:
    return mean_age(load(names))


@dag
def at_the_output(names: list[str]) -> int:
    return mean_age(load_aged(names))


@pytest.mark.slow
def test_what_the_plan_could_not_know_is_checked_at_the_border(run: Runner) -> None:
    """`load` promises no columns: its data set is looked at when it is there."""
    assert run(at_the_border, names=["age", "name"]).output == 2
    error = run(at_the_border, names=["name"]).error
    assert isinstance(error, DataError)
    assert "task mean_age: parameter table breaks its contract" in str(error)
    assert "column 'age' (float) is missing" in str(error)


@pytest.mark.slow
def test_a_task_that_breaks_its_own_contract_is_refused(run: Runner) -> None:
    assert run(at_the_output, names=["age"]).output == 1
    error = run(at_the_output, names=["aged"]).error
    assert isinstance(error, DataError)
    assert "task load_aged: its output breaks its contract" in str(error)
    assert "did you mean 'aged'?" in str(error)


# ── Preflight ────────────────────────────────────────────────────────────────────────────────────


def test_every_preflight_is_asked_and_all_faults_come_back() -> None:
    def refuse_odd(n: int) -> None:
        if n % 2:
            raise DataError(f"{n} is odd")

    @task(preflight=refuse_odd)
    def even(n: int) -> int:
        raise AssertionError("must not run")

    @dag
    def several(n: int = 1) -> list[int]:
        return [even(n), even(n + 1), even(n + 2), even(add(n))]

    leases = Leases(Scope(name="test", run="test", placement=load_placement()))
    found = preflight_faults(several.graph().nodes, {}, leases)
    assert [(name, error.what) for name, error in found] == [("even", "1 is odd"), ("even-3", "3 is odd")]
    with pytest.raises(DataError, match="2 things stand in the way of several"):
        refuse("several", [error for _, error in found])


def test_one_thing_that_stands_in_the_way_is_said_as_it_is() -> None:
    fault = SpecError("no such model")
    with pytest.raises(SpecError, match=r"^no such model$"):
        refuse("several", [fault])
    refuse("several", [])
