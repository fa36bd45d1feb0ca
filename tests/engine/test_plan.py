"""The plan: what each node will do, and why."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from ml_platform.engine import EngineSpec, Plan, dag, either, map_over, task, when
from ml_platform.errors import DataError, SpecError
from ml_platform.resources.budget import usable_cores
from ml_platform.specs.base import NotIdentity, Spec
from ml_platform.store.folders import local_path
from ml_platform.store.history import add_to_history, read_history
from ml_platform.store.location import data_uri, home
from ml_platform.store.results import FOLDER, Results
from tests.counters import CounterSpec
from tests.engine.runs import Ran, Runner, verdicts
from tests.engine.small import Written, add, count_to, is_even, length, number, parity, say, total, write

pytestmark = pytest.mark.slow


@dag
def chain(n: int = 1, by: int = 1) -> int:
    return add(add(number(n).value, by), 100)


@dag
def cut_off(n: int = 2) -> int:
    return add(parity(n), 5)


@dag
def mapped(n: int = 3, by: int = 1) -> int:
    return total(map_over(add, count_to(n), y=by))


def said(plan: Plan) -> dict[str, tuple[str, str]]:
    return {node.name: (node.verdict, node.reason) for node in plan.nodes}


def result_files() -> list[Path]:
    return sorted(
        path for path in (local_path(data_uri()) / FOLDER).glob("*/*.json") if path.parent.name != "code"
    )


def file_of(ran: Ran, node: str) -> Path:
    record = ran.nodes[node]
    return local_path(data_uri()) / FOLDER / record["own"] / f"{record['inputs']}.json"


# ── Verdicts and reasons ─────────────────────────────────────────────────────────────────────────


def test_what_never_ran_runs_and_what_ran_is_cached(run: Runner) -> None:
    assert said(chain.plan()) == dict.fromkeys(("number", "add", "add-2"), ("run", "never ran"))
    assert run(chain).output == 102
    assert said(chain.plan()) == dict.fromkeys(("number", "add", "add-2"), ("cached", "from run-1"))
    again = run(chain)
    assert again.output == 102
    assert again.executed == set()


FACTORS = {"by": 1}


@task
def scaled(n: int) -> int:
    return n * FACTORS["by"]


class Shape:
    def area(self) -> int:
        return 0


@dataclass
class Square(Shape):
    side: int

    def area(self) -> int:
        return self.side * self.side


@task
def area_of(shape: Shape) -> int:
    return shape.area()


@task
def missed(letters: Any) -> int:
    return int(letters["z"])


def test_what_a_process_changes_before_the_next_run_is_seen(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook: a table that a task uses, and a method of a class that no annotation names."""

    @dag
    def changing() -> list[int]:
        return [scaled(2), area_of(Square(3))]

    assert run(changing).output == [2, 9]
    assert set(verdicts(changing.plan()).values()) == {"cached"}
    monkeypatch.setitem(FACTORS, "by", 5)
    assert said(changing.plan())["scaled"] == ("run", "global tests.engine.test_plan.FACTORS changed")
    monkeypatch.setattr(Square, "area", lambda self: 4 * self.side)
    assert verdicts(changing.plan()) == {"scaled": "run", "area_of": "run"}
    assert "parameter shape code" in said(changing.plan())["area_of"][1]
    assert run(changing).output == [10, 12]


def test_what_a_key_does_not_see_is_said_in_the_plan() -> None:
    @task
    def looks(n: int) -> str:
        return os.environ["HOME"] * n

    @dag
    def looking() -> list[str]:
        return [looks(1), looks(2)]

    plan = looking.plan()
    (note,) = plan.notes
    assert note.endswith("looks: reads the environment: declare environment=[…]")
    assert f"- note: {note}" in plan.markdown()
    assert json.loads(plan.model_dump_json())["nodes"][0]["notes"] == [note]


def test_variables_that_are_declared_are_not_asked_for() -> None:
    """Who has done what a note asks for shall not read it in every plan."""

    @task(environment=["HOME"])
    def looks(n: int) -> str:
        return os.environ["HOME"] * n

    @dag
    def looking() -> str:
        return looks(1)

    assert looking.plan().notes == ()


def test_what_a_task_changes_itself_moves_no_key(run: Runner) -> None:
    """Keys are those of the declaration: a task that counts its calls is cached in the next process."""
    calls: list[int] = []

    @task
    def counted(n: int) -> int:
        calls.append(n)
        return len(calls)

    @dag
    def counting() -> int:
        return add(counted(7))

    assert run(counting).output == 2
    calls.clear()
    assert verdicts(counting.plan()) == {"counted": "cached", "add": "cached"}


def test_a_container_that_does_more_reaches_the_task_as_it_is(run: Runner) -> None:
    """A Counter answers for what it lacks; as a plain dict it would not."""

    @dag
    def counts() -> int:
        return missed(Counter("aab"))

    assert run(counts).output == 0


def test_a_changed_parameter_is_named_with_both_values(run: Runner) -> None:
    """Only what depends on it is open; the rest is cached."""
    run(chain, by=1)
    assert said(chain.plan(by=2)) == {
        "number": ("cached", "from run-1"),
        "add": ("run", "parameter y: 1 → 2"),
        "add-2": ("maybe", "waits for add"),
    }
    assert run(chain, by=2).executed == {"add", "add-2"}


def test_an_input_that_moved_is_named_with_both_fingerprints(run: Runner) -> None:
    before = run(chain, n=1).nodes["add"]["input_parts"]["input x"]
    run(chain, n=2, engine=EngineSpec(until="number"))
    plan = chain.plan(n=2)
    after = plan["add"].input_parts["input x"]
    assert verdicts(plan) == {"number": "cached", "add": "run", "add-2": "maybe"}
    assert plan["add"].reason == f"input x moved from {before[:12]} to {after[:12]}"
    assert before != after


def test_what_gives_the_same_again_cuts_the_run_off(run: Runner) -> None:
    """The plan cannot know: it says maybe. The run does, and dependants are cached."""
    run(cut_off, n=2)
    assert verdicts(cut_off.plan(n=4)) == {"parity": "run", "add": "maybe"}
    ran = run(cut_off, n=4)
    assert ran.states == {"parity": "done", "add": "cached"}
    assert ran.output == 5
    assert verdicts(cut_off.plan(n=4)) == {"parity": "cached", "add": "cached"}
    assert run(cut_off, n=3).executed == {"parity", "add"}


class Found(Spec):
    """What was found, and in words that are not what it is: where."""

    rows: int
    source: Annotated[str, NotIdentity()]


@task
def find(source: str) -> Found:
    return Found(rows=5, source=source)


@task
def learn(table: Found) -> int:
    return table.rows


@task(whole=["table", "others"])
def tell(table: Found, others: list[Found], learnt: int) -> str:
    return ", ".join(each.source for each in (table, *others))


def test_a_report_tells_of_what_it_was_given_and_not_of_its_like(run: Runner) -> None:
    """Training is cut off by equal rows from another place; what tells of the place is told anew."""

    @dag
    def told(source: str = "a", other: str = "x", constant: str = "k") -> str:
        table = find(source)
        return tell(table, [find(other), Found(rows=1, source=constant)], learn(table))

    assert run(told).output == "a, x, k"
    assert run(told).executed == set()
    moved = run(told, source="b")
    assert moved.output == "b, x, k"
    assert moved.executed == {"find", "tell"}
    assert run(told, source="b", other="y").output == "b, y, k"
    last = run(told, source="b", other="y", constant="l")
    assert (last.output, last.executed) == ("b, y, l", {"tell"})
    assert set(verdicts(told.plan(source="b", other="y", constant="l")).values()) == {"cached"}


def test_what_a_probe_sees_is_part_of_it(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "version").write_text("v1")

    def version(folder: str) -> str:
        return Path(folder, "version").read_text()

    @task(probe=version)
    def serve(folder: str) -> str:
        return Path(folder, "version").read_text()

    @dag
    def serving(folder: str) -> str:
        return serve(folder)

    run(serving, folder=str(tmp_path))
    assert verdicts(serving.plan(folder=str(tmp_path))) == {"serve": "cached"}
    (tmp_path / "version").write_text("v2")
    assert said(serving.plan(folder=str(tmp_path))) == {"serve": ("run", 'probe: "v1" → "v2"')}
    assert run(serving, folder=str(tmp_path)).output == "v2"


def test_a_probe_that_needs_a_result_waits_for_it(run: Runner) -> None:
    @task(probe=lambda n: n % 2)
    def probing(n: int) -> int:
        return n

    @dag
    def waits(n: int = 1) -> int:
        return probing(add(n))

    assert said(waits.plan())["probing"] == ("maybe", "its probe waits for add")
    run(waits)
    assert verdicts(waits.plan()) == {"add": "cached", "probing": "cached"}


def test_forced_nodes_run_and_give_the_same(run: Runner) -> None:
    run(chain)
    engine = EngineSpec(force=("add",))
    assert said(chain.plan(engine=engine)) == {
        "number": ("cached", "from run-1"),
        "add": ("run", "forced"),
        "add-2": ("maybe", "waits for add"),
    }
    assert run(chain, engine=engine).states == {"number": "cached", "add": "done", "add-2": "cached"}


def test_forcing_a_mapped_task_forces_every_item(run: Runner) -> None:
    run(mapped)
    engine = EngineSpec(force=("add",))
    plan = mapped.plan(engine=engine)
    assert {name: plan[name].reason for name in ("add[0]", "add[1]", "add[2]")} == dict.fromkeys(
        ("add[0]", "add[1]", "add[2]"), "forced"
    )
    assert run(mapped, engine=engine).executed == {"add[0]", "add[1]", "add[2]"}


def test_a_task_may_be_declared_to_run_always(run: Runner) -> None:
    @task(cache=False)
    def ask(n: int) -> int:
        return n

    @dag
    def asks(n: int = 1) -> int:
        return add(ask(n))

    run(asks)
    assert said(asks.plan())["ask"] == ("run", "it is declared with cache=False")
    assert run(asks).states == {"ask": "done", "add": "cached"}


class Holder:
    """Nothing tells one from another."""


HOLDER = Holder()


@task
def hold(thing: Any) -> int:
    return 1


@task
def open_holder(n: int) -> Any:
    return {"deep": [Holder()]}


def test_what_cannot_be_told_apart_runs_and_says_why(run: Runner) -> None:
    @dag
    def holds(n: int = 1) -> list[int]:
        return [hold({"deep": [HOLDER]}), hold.with_options(name="given")(open_holder(n))]

    run(holds)
    plan = holds.plan()
    assert said(plan)["hold"] == (
        "run",
        "uncacheable: thing.deep[0]: a tests.engine.test_plan.Holder has no identity",
    )
    assert plan["open_holder"].verdict == "run"
    assert run(holds).executed == {"hold", "open_holder", "given"}


# ── Results that no longer count ─────────────────────────────────────────────────────────────────


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def edited(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"output":102', b'"output":103'))
    assert path.read_bytes() != content


def replaced(path: Path) -> None:
    others = [other for other in result_files() if other != path]
    path.write_bytes(others[0].read_bytes())


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "deleted": (Path.unlink, "result missing"),
    "truncated": (truncated, "result file damaged"),
    "edited": (edited, "result file damaged"),
    "emptied": (lambda path: path.write_bytes(b""), "result file damaged"),
    "replaced": (replaced, "result file damaged: it holds the result of another key"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_is_made_again(run: Runner, damage: str) -> None:
    do, reason = DAMAGES[damage]
    do(file_of(run(chain), "add-2"))
    plan = chain.plan()
    assert verdicts(plan) == {"number": "cached", "add": "cached", "add-2": "run"}
    assert plan["add-2"].reason.startswith(reason)
    assert run(chain).output == 102
    assert set(verdicts(chain.plan()).values()) == {"cached"}


@dag
def files(folder: str, text: str = "abc") -> int:
    return length(write(folder, text))


def test_a_result_counts_only_while_what_it_refers_to_is_there(run: Runner, tmp_path: Path) -> None:
    """The file is made again; its content is what it was, so dependants are cached."""
    folder, file = str(tmp_path), tmp_path / "written"
    run(files, folder=folder)
    assert set(verdicts(files.plan(folder=folder)).values()) == {"cached"}
    file.write_text("xyz")
    assert said(files.plan(folder=folder))["write"] == ("run", f"result missing: {file.as_uri()} was changed")
    assert run(files, folder=folder).states == {"write": "done", "length": "cached"}
    assert file.read_text() == "abc"
    file.unlink()
    assert said(files.plan(folder=folder))["write"] == ("run", f"result missing: {file.as_uri()} is gone")
    assert run(files, folder=folder).states == {"write": "done", "length": "cached"}


def test_an_effect_is_verified_before_it_is_taken_for_done(run: Runner, tmp_path: Path) -> None:
    def in_place(output: Written, text: str) -> str | None:
        return None if Path(output.uri.removeprefix("file://") + ".mark").exists() else f"{text} is unmarked"

    marked = write.with_options(verify=in_place)

    @dag
    def verified(folder: str) -> int:
        return length(marked(folder, "abc"))

    folder, mark = str(tmp_path), tmp_path / "written.mark"
    run(verified, folder=folder)
    assert said(verified.plan(folder=folder))["write"] == ("run", "abc is unmarked")
    mark.touch()
    assert set(verdicts(verified.plan(folder=folder)).values()) == {"cached"}


# ── Blocked ──────────────────────────────────────────────────────────────────────────────────────


def refuse_negative(n: int) -> None:
    if n < 0:
        raise DataError(f"{n} is negative", hint="a positive one")


def stumble(n: int) -> None:
    raise KeyError("no such thing")


def identical(n: int) -> int:
    return n


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"preflight": refuse_negative}, "-1 is negative"),
        ({"probe": refuse_negative}, "-1 is negative"),
        ({"preflight": stumble}, "the preflight of asked failed"),
        ({"probe": stumble}, "the probe of asked failed"),
    ],
    ids=["preflight", "probe", "preflight that breaks", "probe that breaks"],
)
def test_what_cannot_work_is_blocked_with_all_after_it(options: dict[str, Any], reason: str) -> None:
    asked = task(name="asked", **options)(identical)

    @dag
    def refuses(n: int = -1) -> list[int]:
        return [add(add(asked(n))), add.with_options(name="apart")(2)]

    found = said(refuses.plan())
    assert found["asked"] == ("blocked", reason)
    assert found["add"] == ("blocked", "asked is blocked")
    assert found["add-2"][0] == "blocked"
    assert found["apart"] == ("run", "never ran")


def test_what_is_cached_is_not_asked(run: Runner) -> None:
    """A preflight belongs to work that is to be done."""
    asked: list[int] = []

    def count(n: int) -> None:
        asked.append(n)

    counted = task(name="counted", preflight=count)(identical)

    @dag
    def counts(n: int = 1) -> int:
        return counted(n)

    run(counts)
    assert asked == [1]
    counts.plan()
    assert run(counts).states == {"counted": "cached"}
    assert asked == [1]


def test_a_resource_that_can_never_be_had_blocks(happened: list[str]) -> None:
    @task
    def greedy(n: int, things: list[str] = CounterSpec(cores=10_000)) -> int:  # type: ignore[assignment]
        return n

    @dag
    def never(n: int = 1) -> int:
        return add(greedy(n))

    found = said(never.plan())
    assert found["greedy"] == ("blocked", "task greedy can never get its resources here")
    assert found["add"] == ("blocked", "greedy is blocked")
    assert happened == []


def test_an_item_that_cannot_work_blocks_what_takes_the_list(run: Runner) -> None:
    """Also when the list is known, and each item has a node of its own."""

    @task(preflight=refuse_negative)
    def careful(n: int) -> int:
        return n

    @task
    def around(n: int) -> list[int]:
        return [n, -n]

    @dag
    def maps(n: int = 1) -> int:
        return add(total(map_over(careful, around(n))))

    run(maps, engine=EngineSpec(until="around"))
    found = said(maps.plan())
    assert found["careful[0]"][0] == "run"
    assert found["careful[1]"] == ("blocked", "-1 is negative")
    assert found["total"][0] == "blocked"
    assert found["add"][0] == "blocked"


# ── Branches and lists in the plan ───────────────────────────────────────────────────────────────


@dag
def branching(n: int = 2) -> list[Any]:
    with when(is_even(n)) as even:
        one = add(n)
    with even.otherwise():
        two = number(n)
    return [say(one), two, total([add(n, 7)])]


def test_a_branch_is_open_until_its_condition_is_known(run: Runner, happened: list[str]) -> None:
    """What has never run may still be skipped: it is not sure to run."""
    first = said(branching.plan())
    assert first["add"] == ("maybe", "never ran; only if is_even is True")
    assert first["number"] == ("maybe", "never ran; only if is_even is not True")
    assert first["add-2"] == ("run", "never ran")
    run(branching)
    second = said(branching.plan())
    assert second["add"][0] == "cached"
    assert second["number"] == ("skipped", "not taken: only if is_even is not True")
    assert set(verdicts(branching.plan()).values()) == {"cached", "skipped"}


def test_a_resource_of_a_branch_is_not_certain(happened: list[str]) -> None:
    @task
    def costly(n: int, things: list[str] = CounterSpec(cores=1)) -> int:  # type: ignore[assignment]
        return n

    @dag
    def may_cost(n: int = 2) -> int:
        with when(is_even(n)):
            costly(n)
        return add(n)

    plan = may_cost.plan()
    assert [(held.name, held.tasks, held.certain, held.cores) for held in plan.resources] == [
        ("Counter", ("costly",), False, 1)
    ]


def test_a_known_list_is_expanded_in_the_plan(run: Runner) -> None:
    assert verdicts(mapped.plan(n=2)) == {"count_to": "run", "add": "maybe", "total": "run"}
    run(mapped, n=2)
    assert set(verdicts(mapped.plan(n=2))) == {"count_to", "add[0]", "add[1]", "total"}
    assert set(verdicts(mapped.plan(n=2)).values()) == {"cached"}
    run(mapped, n=3, engine=EngineSpec(until="count_to"))
    assert said(mapped.plan(n=3)) == {
        "count_to": ("cached", "from run-2"),
        "add[0]": ("cached", "from run-1"),
        "add[1]": ("cached", "from run-1"),
        "add[2]": ("run", "never ran"),
        "total": ("maybe", "waits for add"),
    }
    assert run(mapped, n=3).executed == {"add[2]", "total"}


def test_an_empty_list_has_nothing_to_do(run: Runner) -> None:
    run(mapped, n=0)
    assert said(mapped.plan(n=0)) == {
        "count_to": ("cached", "from run-1"),
        "add": ("skipped", "the list is empty"),
        "total": ("cached", "from run-1"),
    }
    assert run(mapped, n=0).output == 0


def test_a_mapped_branch_that_is_not_taken_is_one_skipped_node(run: Runner) -> None:
    @task
    def how_many(values: list[int] | None) -> int:
        return -1 if values is None else len(values)

    @dag
    def maybe_mapped(n: int = 3) -> int:
        items = count_to(n)
        with when(is_even(n)):
            grown = map_over(add, items)
        return how_many(grown)

    assert run(maybe_mapped, n=3).output == -1
    plan = maybe_mapped.plan(n=3)
    assert verdicts(plan) == {
        "count_to": "cached",
        "is_even": "cached",
        "add": "skipped",
        "how_many": "cached",
    }
    assert run(maybe_mapped, n=3).output == -1


def test_either_branch_may_have_given_the_same(run: Runner) -> None:
    """What takes `either` is told by what it gets, not by the branch it came from."""

    @dag
    def two_ways(n: int = 2) -> int:
        with when(is_even(n)) as even:
            one = add(parity(n), 1)
        with even.otherwise():
            two = parity.with_options(name="odd")(n)
        return add.with_options(name="last")(either(one, two), 10)

    assert run(two_ways, n=2).output == 11
    ran = run(two_ways, n=3)
    assert ran.output == 11
    assert ran.states["last"] == "cached"


# ── What is asked of the engine ──────────────────────────────────────────────────────────────────


def test_until_leaves_the_rest_out(run: Runner) -> None:
    engine = EngineSpec(until="add")
    assert set(verdicts(chain.plan(engine=engine))) == {"number", "add"}
    assert run(chain, engine=engine).output == 2
    assert verdicts(chain.plan()) == {"number": "cached", "add": "cached", "add-2": "run"}


def test_a_task_is_found_by_its_name_in_every_dag_within() -> None:
    @dag
    def inside(n: int) -> int:
        return number(add(n)).value

    @dag
    def around(n: int = 1) -> list[int]:
        return [inside(n), add(inside(2))]

    forced = around.plan(engine=EngineSpec(force=("number",)))
    assert {node.name for node in forced.nodes if node.reason == "forced"} == {
        "inside.number",
        "inside-2.number",
    }
    until = around.plan(engine=EngineSpec(until="inside-2.number"))
    assert set(verdicts(until)) == {"inside-2.add", "inside-2.number"}


@pytest.mark.parametrize("engine", [EngineSpec(until="nunber"), EngineSpec(force=("nunber",))])
def test_an_unknown_task_names_the_nearest(engine: EngineSpec) -> None:
    with pytest.raises(SpecError, match="chain has no task 'nunber'") as caught:
        chain.plan(engine=engine)
    assert "did you mean 'number'?" in str(caught.value)


def test_the_plan_as_json(run: Runner, happened: list[str]) -> None:
    @task
    def costly(n: int, things: list[str] = CounterSpec(cores=1)) -> int:  # type: ignore[assignment]
        return n

    @dag
    def planned(n: int = 1) -> int:
        return costly(add(n))

    run(planned)
    plan = json.loads(planned.plan(n=2).model_dump_json())
    assert [{key: node[key] for key in ("name", "verdict", "reason")} for node in plan["nodes"]] == [
        {"name": "add", "verdict": "run", "reason": "parameter x: 1 → 2"},
        {"name": "costly", "verdict": "maybe", "reason": "waits for add"},
    ]
    assert all(node["expected_seconds"] >= 0 for node in plan["nodes"])
    assert plan["nodes"][1]["resources"] == ["Counter"]
    (held,) = plan["resources"]
    assert (held["name"], held["tasks"], held["certain"], held["cores"]) == ("Counter", ["costly"], False, 1)
    assert plan["expected_seconds"] == sum(node["expected_seconds"] for node in plan["nodes"])
    assert plan["budget"].startswith(f"{usable_cores()} cores, ")
    assert plan["budget"].endswith(" MiB")


def test_mode_plan_returns_the_plan_and_runs_nothing(run: Runner) -> None:
    ran = run(chain, engine=EngineSpec(mode="plan"))
    assert isinstance(ran.output, Plan)
    assert ran.output == chain.plan()
    assert ran.events == []


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_planning_starts_nothing_and_leaves_nothing(run: Runner, happened: list[str]) -> None:
    """No record, no result, no lease; with and without results in the store."""

    @task
    def costly(n: int, things: list[str] = CounterSpec(cores=1)) -> int:  # type: ignore[assignment]
        return n

    @dag
    def planned(n: int = 1) -> int:
        return costly(add(n))

    planned.plan()
    assert [path for path in tree(home()) if path.is_file()] == []
    assert happened == []
    run(planned)
    before, said_before = tree(home()), list(happened)
    planned.plan()
    planned.plan(n=2)
    assert tree(home()) == before
    assert happened == said_before


def test_code_that_another_version_kept_explains_less_and_fails_nothing(run: Runner) -> None:
    """What changed in a function is found by comparing; what cannot be read is not compared."""
    run(chain)
    known = read_history("chain")
    foreign = Results().put_code({"later": "another version's"})
    add_to_history("chain", {name: node.model_copy(update={"code": foreign}) for name, node in known.items()})
    plan = chain.plan(by=2)
    assert verdicts(plan) == {"number": "cached", "add": "run", "add-2": "maybe"}
    assert said(plan)["add"] == ("run", "parameter y: 1 → 2")
