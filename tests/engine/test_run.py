"""Running: a graph inside one Prefect flow run, against a real Prefect server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from uuid import UUID

import prefect
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.runtime import flow_run
from pydantic import BaseModel

from ml_platform.engine import TaskEvent, dag, task, watching
from ml_platform.engine.prefect_door import flow_runs_of_this_process, wait_until_recorded
from ml_platform.errors import DataError, GraphError, ResourceStartError
from ml_platform.resources.leases import close_process_leases
from ml_platform.resources.progress import report
from ml_platform.specs.resources import Horovod
from ml_platform.store.location import runs_folder
from tests.counters import CounterSpec

pytestmark = [pytest.mark.usefixtures("prefect_api"), pytest.mark.slow]


class Number(BaseModel):
    value: int


@task
def number(value: int) -> Number:
    return Number(value=value)


@task
def add(x: int, y: int) -> int:
    report("adding", done=1, total=2)
    return x + y


@task(light=True)
def doubled(x: int) -> int:
    return 2 * x


@task
def run_name() -> str:
    return str(flow_run.name)


def test_a_run_returns_what_the_dag_promised() -> None:
    @dag
    def sums(n: int = 2) -> dict[str, int]:
        one, two = number(n), number(10)
        return {"sum": add(one.value, two.value), "one": one.value}

    assert sums(n=5) == {"sum": 15, "one": 5}


def test_the_same_task_runs_at_once_in_a_plain_flow(happened: list[str]) -> None:
    """The second door: no dag, no plan, resources injected all the same."""

    @task
    def five_lines(n: int, things: list[str] = CounterSpec()) -> int:  # type: ignore[assignment]
        return n + len(things)

    @prefect.flow
    def plain() -> int:
        return five_lines(1)

    @dag
    def declared(n: int = 1) -> int:
        return five_lines(n)

    assert plain() == 3
    assert happened == ["opened a", "five_lines uses a"], "shared until the process ends"
    close_process_leases()
    assert happened.pop() == "closed a"
    happened.clear()
    assert declared() == 3
    assert happened == ["opened a", "five_lines uses a", "closed a"]


def test_nodes_that_do_not_wait_for_each_other_run_side_by_side() -> None:
    """Each waits until all of them run: there are few threads at first."""
    meeting = threading.Barrier(12)

    @task
    def meet(x: int) -> int:
        meeting.wait(timeout=30)
        return x

    @dag
    def many() -> list[int]:
        return [meet(x) for x in range(12)]

    assert many() == list(range(12))


def test_task_runs_have_the_names_and_edges_of_the_graph() -> None:
    """In Prefect's UI: one task run per node, parents per parameter, also for plain integers. A light node
    has none, and those above stand for it."""

    @dag
    def sums() -> tuple[str, int]:
        one = number(3)
        return run_name(), add(one.value, doubled(add(one.value, 1)))

    name, total = sums()
    assert total == 3 + 2 * 4
    flow_run_id = _id_of(name)
    assert wait_until_recorded([flow_run_id], timeout_s=60)
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])))
    by_name = {run.name: run for run in runs}
    assert set(by_name) == {"number", "run_name", "add", "add-2"}
    parents = {k: {i.id for i in v if hasattr(i, "id")} for k, v in by_name["add-2"].task_inputs.items()}
    assert parents["x"] == {by_name["number"].id}
    assert parents["y"] == {by_name["add"].id}
    assert parents.get("value", set()) == set()


def test_watchers_see_every_node_start_progress_and_end() -> None:
    @dag
    def sums() -> int:
        return add(1, 2)

    seen: list[TaskEvent] = []
    with watching(seen.append):
        sums()
    assert [event.state for event in seen] == ["waiting", "running", "running", "done"]
    assert (seen[2].message, seen[2].done, seen[2].total) == ("adding", 1, 2)


def test_a_failure_ends_the_run_and_keeps_its_type(happened: list[str]) -> None:
    """The user's own error arrives; what has not started is skipped; resources are closed."""

    @task
    def fail(things: list[str] = CounterSpec()) -> int:  # type: ignore[assignment]
        raise DataError("table.csv is empty")

    @dag
    def fails() -> int:
        return add(fail(), 1)

    seen: list[TaskEvent] = []
    with watching(seen.append), pytest.raises(DataError, match=r"table.csv is empty"):
        fails()
    assert [(e.node, e.state) for e in seen][-2:] == [("fail", "failed"), ("add", "skipped")]
    assert happened[-1] == "closed a"


def test_a_resource_is_closed_after_its_last_user(happened: list[str]) -> None:
    @task
    def uses(x: int, things: list[str] = CounterSpec()) -> int:  # type: ignore[assignment]
        return x

    @task
    def looks(x: int) -> list[str]:
        return list(happened)

    @dag
    def chain() -> list[str]:
        return looks(uses(uses(1)))

    assert chain() == ["opened a", "uses uses a", "uses-2 uses a", "closed a"]


def test_resources_close_in_reverse_order(happened: list[str]) -> None:
    @task
    def both(
        first: list[str] = CounterSpec(name="a"),  # type: ignore[assignment]
        second: list[str] = CounterSpec(name="b"),  # type: ignore[assignment]
    ) -> int:
        return 1

    @dag
    def once() -> int:
        return both()

    once()
    assert happened == ["opened a", "opened b", "both uses a", "both uses b", "closed b", "closed a"]


def test_what_can_never_start_is_refused_before_anything_does(happened: list[str]) -> None:
    @task
    def greedy(x: int, things: list[str] = CounterSpec(cores=10_000)) -> int:  # type: ignore[assignment]
        return x

    @dag
    def never() -> int:
        return greedy(add(1, 2))

    seen: list[TaskEvent] = []
    with watching(seen.append), pytest.raises(ResourceStartError, match="task greedy can never get"):
        never()
    assert seen == []
    assert happened == []


def test_preflights_see_what_is_known_and_all_faults_come_at_once() -> None:
    def refuse_odd(x: int) -> None:
        if x % 2:
            raise DataError(f"{x} is odd")

    @task(preflight=refuse_odd)
    def even(x: int) -> int:
        raise AssertionError("must not run")

    @dag
    def odd_ones(n: int = 3) -> list[int]:
        return [even(n), even(n + 2), even(add(1, 2))]

    with pytest.raises(DataError, match="2 things stand in the way") as caught:
        odd_ones()
    assert "3 is odd" in str(caught.value)
    assert "5 is odd" in str(caught.value)


def test_an_output_that_its_type_does_not_say_is_refused() -> None:
    @task
    def lies() -> int:
        return "three"  # type: ignore[return-value]

    @dag
    def believes() -> int:
        return lies()

    with pytest.raises(GraphError, match="task lies returned what its type does not say"):
        believes()


def test_retries_and_async_tasks_work_as_in_prefect() -> None:
    attempts: list[int] = []

    @task(retries=2)
    def flaky() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError("not yet")
        return len(attempts)

    @task
    async def later(x: int) -> int:
        return x * 2

    @dag
    def tries() -> int:
        return later(flaky())

    assert tries() == 6


@task
def ten_times(value: int) -> int:
    return value * 10


def test_a_run_that_has_nothing_to_do_says_so_in_its_state_and_gives_what_it_gave() -> None:
    """A nightly run on unchanged data: one line on its page in Prefect, and in its plan."""

    @dag
    def nightly(n: int = 4711) -> int:
        return ten_times(n)

    assert nightly() == nightly() == 47110
    with get_client(sync_client=True) as client:
        newest = FlowFilter(name=FlowFilterName(any_=["nightly"]))
        runs = client.read_flow_runs(flow_filter=newest, sort=FlowRunSort.START_TIME_ASC)
        first, second = (client.read_flow_run(run.id).state for run in runs[-2:])
    assert first is not None
    assert second is not None
    assert first.message is None
    assert (second.type, second.message) == (StateType.COMPLETED, "nothing to do: 1 result is stored")


def test_the_run_record_says_what_each_node_did() -> None:
    @dag
    def sums(n: int = 2) -> tuple[str, int]:
        return run_name(), add(number(n).value, 1)

    name, _ = sums()
    record = json.loads((runs_folder(name) / "run.json").read_text())
    assert record["state"] == "completed"
    assert record["parameters"] == {"n": 2}
    nodes = {node["node"]: node for node in record["nodes"]}
    assert nodes["number"]["output"] == {"value": 2}
    assert nodes["add"]["output"] == 3
    assert nodes["add"]["seconds"] >= 0


def test_more_ranks_than_cores_fail_in_the_plan() -> None:
    @task
    def train(job: object = Horovod(ranks=4_000)) -> int:
        raise AssertionError("must not run")

    @dag
    def trains() -> int:
        return train()

    with pytest.raises(ResourceStartError, match="task train can never get its resources"):
        trains()


def _id_of(name: str) -> UUID:
    with get_client(sync_client=True) as client:
        found: Callable[[UUID], str] = lambda run_id: client.read_flow_run(run_id).name  # noqa: E731
        return next(run_id for run_id in flow_runs_of_this_process() if found(run_id) == name)
