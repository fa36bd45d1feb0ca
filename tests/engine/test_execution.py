"""The executor: work is done once, failures are tried again by their cause, and what stops leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterName
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.states import Cancelling, Failed

from ml_platform import errors
from ml_platform.engine import EngineSpec, TaskEvent, dag, map_over, task, watching, when
from ml_platform.engine.prefect_door import flow_runs_of_this_process, wait_until_recorded
from ml_platform.engine.run import GRACE_S, STOP_S
from ml_platform.engine.task import worth_retrying
from ml_platform.errors import DataError, GraphError, TaskTimeoutError
from ml_platform.resources.budget import usable_cores
from ml_platform.resources.leases import Leases, Scope, using
from ml_platform.resources.placement import Placement
from ml_platform.store.location import home
from ml_platform.store.records import read_run
from tests.counters import CounterLease, CounterSpec
from tests.engine import together
from tests.engine.runs import ENDED, Runner
from tests.engine.small import Number, add, count_to, is_even, lines_of, note, number, say, total
from tests.late_spark import never_ready

pytestmark = pytest.mark.slow


@contextmanager
def process(what: str, folder: Path, api: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Another process on the same platform folder and server."""
    environment = {**os.environ, **variables}
    environment |= {"PREFECT_API_URL": api, "PREFECT_LOGGING_TO_API_ENABLED": "false"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "tests.engine.together", what, str(folder)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()


# ── Single flight ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("prefect_api")
def test_two_threads_do_equal_work_once(tmp_path: Path) -> None:
    """Who comes second waits, and takes the result."""
    folder = tmp_path / "shared"
    folder.mkdir()

    def run_it() -> int:
        with watching(together.opening_the_gate(folder)):
            return together.meeting(folder=str(folder))

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(copy_context().run, run_it) for _ in range(2)]
        assert [each.result() for each in asked] == [42, 42]
    assert lines_of(folder / "ran") == 1


def test_two_processes_do_equal_work_once(prefect_api: str, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    with process("meet", folder, prefect_api) as other:
        with watching(together.opening_the_gate(folder)):
            assert together.meeting(folder=str(folder)) == 42
        assert other.wait(together.DEADLINE_S) == 0, other.stderr and other.stderr.read()
    assert (folder / "output").read_text() == "42"
    assert lines_of(folder / "ran") == 1


def test_equal_calls_in_one_run_do_the_work_once(run: Runner, tmp_path: Path) -> None:
    file = str(tmp_path / "ran")

    @dag
    def twice(file: str) -> int:
        return total([note(file, 3), note(file, 3), note(file, 4)])

    ran = run(twice, file=file)
    assert ran.output == 10
    assert sorted(ran.states.values()) == ["cached", "done", "done", "done"]
    assert lines_of(Path(file)) == 2


@pytest.mark.usefixtures("happened")
def test_what_another_run_finished_in_the_meantime_is_not_done_again(
    run: Runner, prefect_api: str, tmp_path: Path
) -> None:
    """A task that waits for its share of the budget was decided long before it starts."""
    everything = usable_cores()

    @task
    def occupy(folder: str, things: Any = CounterSpec(name="a", cores=everything)) -> int:
        Path(folder, "occupied").touch()
        together.wait_for(Path(folder, "gate"))
        return 1

    @task
    def work(folder: str, things: Any = CounterSpec(name="b", cores=everything)) -> int:
        return note.fn(f"{folder}/ran")

    @dag
    def late(folder: str) -> list[int]:
        return [occupy(folder), work(folder)]

    @dag
    def early(folder: str) -> int:
        return work(folder)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run, late, folder=str(tmp_path))
        together.wait_for(tmp_path / "occupied")
        early(folder=str(tmp_path))
        (tmp_path / "gate").touch()
        assert waiting.result().output == [1, 0]
    assert lines_of(tmp_path / "ran") == 1


# ── Retries by cause ─────────────────────────────────────────────────────────────────────────────


@task
def fails(file: str, error: str) -> int:
    note.fn(file)
    raise {**vars(errors), "ValueError": ValueError, "MemoryError": MemoryError}[error]("on purpose")


@pytest.mark.parametrize(
    ("error", "options", "tries"),
    [
        ("DataError", {"retries": 3}, 1),
        ("GraphError", {"retries": 3}, 1),
        ("PromotionError", {"retries": 3}, 1),
        ("DesyncError", {"retries": 3}, 1),
        ("InfrastructureError", {}, 2),
        ("RankLostError", {}, 2),
        ("RankError", {}, 1),
        ("RankError", {"retries": 0}, 1),
        ("RankError", {"retries": 2}, 3),
        ("ValueError", {}, 1),
        ("ValueError", {"retries": 2}, 3),
        ("MemoryError", {"retries": 1}, 2),
        ("InfrastructureError", {"light": True}, 2),
        ("DesyncError", {"light": True}, 1),
        ("DataError", {"light": True}, 1),
        ("ValueError", {"light": True}, 1),
    ],
)
def test_the_cause_says_whether_it_is_tried_again(
    run: Runner, tmp_path: Path, error: str, options: dict[str, Any], tries: int
) -> None:
    @dag
    def failing(file: str) -> int:
        return fails.with_options(**options)(file, error)

    file = tmp_path / "tries"
    ran = run(failing, file=str(file))
    assert type(ran.error).__name__ == error
    assert lines_of(file) == tries
    assert ran.nodes["fails"]["state"] == "failed"


def test_once_a_run_was_stopped_nothing_is_tried_again() -> None:
    """What lost its resources because another task failed would only fail once more."""
    leases = Leases(Scope(name="test", run="test", placement=Placement()))
    lost: State[Any] = Failed(data=errors.RankLostError("lost"))
    with using(leases):
        assert worth_retrying(fails, None, lost)
        leases.cancel()
        assert not worth_retrying(fails, None, lost)


def test_a_light_task_is_given_its_resources(run: Runner, happened: list[str]) -> None:
    @task(light=True)
    def counted(n: int, things: list[str] = CounterSpec()) -> int:  # type: ignore[assignment]
        return n

    @dag
    def counting() -> list[int]:
        return [counted(1), counted(2)]

    assert run(counting).output == [1, 2]
    assert happened == ["opened a", "counted uses a", "counted-2 uses a", "closed a"]


def test_a_task_called_alone_takes_a_resource_that_is_open(happened: list[str]) -> None:
    """As a notebook or a unit test calls it, with a session of its own."""

    @task
    def counted(n: int, things: list[str] = CounterSpec()) -> list[str]:  # type: ignore[assignment]
        return [*things, str(n)]

    assert counted.fn(1, things=["mine"]) == ["mine", "1"]
    assert happened == []


# ── Timeouts ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("first", ["our clock", "Prefect's clock"])
def test_a_task_that_takes_too_long_is_ended_with_its_resources(
    run: Runner, happened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Both clocks run for the same time; whichever rings first, it ends the same way."""
    if first == "Prefect's clock":
        timer = threading.Timer
        monkeypatch.setattr(threading, "Timer", lambda seconds, end: timer(seconds + 600, end))
    slow = together.endless.with_options(timeout_seconds=2.0, retries=0)

    @dag
    def times_out(folder: str) -> int:
        return slow(folder)

    ran = run(times_out, folder=str(tmp_path))
    assert isinstance(ran.error, TaskTimeoutError)
    assert "task endless took too long" in str(ran.error)
    assert "at most 2 s" in str(ran.error)
    assert happened[:3] == ["opened a", "endless uses a", "cancelled a"]
    assert happened[-1] == "closed a"
    assert (tmp_path / "unwound").exists()


def test_a_task_that_is_in_time_is_left_alone(run: Runner) -> None:
    @task(timeout_seconds=60)
    def in_time(n: int) -> int:
        return n

    @dag
    def quick(n: int = 1) -> int:
        return in_time(n)

    assert run(quick).output == 1
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    ours = [timer for timer in timers if not timer.name.startswith("pytest_timeout")]
    assert all(timer.finished.is_set() for timer in ours)


# ── Resources ────────────────────────────────────────────────────────────────────────────────────


def test_resources_start_ahead_of_need_where_the_need_is_certain(run: Runner, happened: list[str]) -> None:
    """The first task sees that what the second needs is open; not so while the second may be cut off."""

    @task(cache=False)
    def looks(n: int) -> list[str]:
        return list(happened)

    @task
    def uses(seen: list[str], things: Any = CounterSpec()) -> list[str]:
        return seen

    @dag
    def chain(n: int = 1) -> list[str]:
        return uses(looks(n))

    assert run(chain).output == ["opened a"]
    happened.clear()
    assert run(chain).output == []
    assert happened == ["opened a", "uses uses a", "closed a"]


def test_what_surely_runs_is_prepared_while_the_rest_is_planned(
    run: Runner, happened: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where it alone is new there is no other time. Not when all is cached, nor when it is only planned."""
    prepared, asked = tmp_path / "prepared", tmp_path / "asked"
    monkeypatch.setattr(CounterLease, "prepare", lambda spec, placement: prepared.touch())

    def look(folder: str) -> int:
        with Path(folder, "asked").open("a") as file:
            file.write(f"{Path(folder, 'prepared').exists()} ")
        return 1

    @task
    def uses(n: int, things: Any = CounterSpec()) -> int:
        return n

    @task(probe=look)
    def evaluates(n: int, folder: str) -> int:
        return n

    @dag
    def chain(folder: str, n: int = 1) -> int:
        return evaluates(uses(n), folder)

    folder = str(tmp_path)
    chain.plan(folder=folder)
    run(chain, folder=folder, engine=EngineSpec(mode="plan"))
    assert set(asked.read_text().split()) == {"False"}
    asked.unlink()
    assert run(chain, folder=folder).output == 1
    assert asked.read_text().split()[0] == "True"
    prepared.unlink()
    assert set(run(chain, folder=folder).states.values()) == {"cached"}
    assert not prepared.exists()


def test_what_is_new_whatever_it_is_given_is_prepared_before_anybody_is_asked(
    run: Runner, happened: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not so where a result may be stored of it, which depends on what comes before."""
    prepared, asked = tmp_path / "prepared", tmp_path / "asked"
    monkeypatch.setattr(CounterLease, "prepare", lambda spec, placement: prepared.touch())

    def look(folder: str) -> int:
        if not asked.exists():
            asked.write_text(str(prepared.exists()))
        return int(Path(folder, "n").read_text())

    @task(probe=look)
    def loads(folder: str) -> int:
        return int(Path(folder, "n").read_text())

    @task
    def uses(n: int, rate: float, things: Any = CounterSpec()) -> float:
        return n * rate

    @dag
    def chain(folder: str, rate: float = 0.5) -> float:
        return uses(loads(folder), rate)

    def prepared_when_asked(n: int, rate: float) -> str:
        for path in (prepared, asked):
            path.unlink(missing_ok=True)
        (tmp_path / "n").write_text(str(n))
        assert run(chain, folder=str(tmp_path), rate=rate).output == n * rate
        return asked.read_text()

    assert prepared_when_asked(2, 0.5) == "True"
    assert prepared_when_asked(2, 0.25) == "True"
    assert prepared_when_asked(4, 0.25) == "False"


# ── Failures ─────────────────────────────────────────────────────────────────────────────────────


@dag
def two_branches(folder: str) -> list[int]:
    broken = fails(f"{folder}/tries", "DataError")
    fine = note(f"{folder}/fine")
    return [add(add(broken)), add(fine, 7)]


def test_what_does_not_depend_on_a_failure_is_finished_if_asked(run: Runner, tmp_path: Path) -> None:
    ran = run(two_branches, folder=str(tmp_path), engine=EngineSpec(on_failure="finish"))
    assert isinstance(ran.error, DataError)
    assert ran.states == {
        "fails": "failed",
        "add": "skipped",
        "add-2": "skipped",
        "note": "done",
        "add-3": "done",
    }
    assert ran.nodes["add"]["reason"] == "fails failed"


def test_a_failed_item_ends_what_takes_the_list_and_nothing_else(run: Runner) -> None:
    @task
    def picky(n: int) -> int:
        if n == 1:
            raise DataError("one is too few")
        return n

    @dag
    def picks(n: int = 3) -> list[int]:
        return [total(map_over(picky, count_to(n))), add(add(n))]

    ran = run(picks, engine=EngineSpec(on_failure="finish"))
    assert isinstance(ran.error, DataError)
    assert ran.states["picky[0]"] == ran.states["picky[2]"] == ran.states["add-2"] == "done"
    assert ran.states["picky[1]"] == "failed"
    assert ran.states["total"] == "skipped"


def test_other_items_of_a_list_keep_the_resource_of_a_failed_one(
    run: Runner, happened: list[str], tmp_path: Path
) -> None:
    """It is closed after the last of them, whatever became of the first; what failed alone lets go."""

    @task
    def picky(n: int, folder: str, things: Any = CounterSpec()) -> int:
        if n == 0:
            raise DataError("none is too few")
        for node in ("picky", "add"):
            together.wait_for(Path(folder, node))
        happened.append(f"{n} still works")
        return n

    @task
    def alone(n: int, things: Any = CounterSpec(name="b")) -> int:
        raise DataError("no rows")

    @dag
    def picks(folder: str, n: int = 2) -> list[int]:
        return [total(map_over(picky, count_to(n), folder=folder)), add(alone(n))]

    def watch(event: TaskEvent) -> None:
        if event.state in ("failed", "skipped"):
            (tmp_path / event.node).touch()

    ran = run(picks, watch=watch, folder=str(tmp_path), engine=EngineSpec(on_failure="finish"))
    assert isinstance(ran.error, DataError)
    assert ran.states["picky"] == ran.states["picky[0]"] == ran.states["alone"] == "failed"
    assert ran.states["picky[1]"] == "done"
    assert happened.index("closed b") < happened.index("1 still works") < happened.index("closed a")


def test_by_default_a_failure_ends_everything(run: Runner, happened: list[str], tmp_path: Path) -> None:
    """What runs beside it is cancelled and unwound."""

    @task
    def breaks_later(folder: str) -> int:
        together.wait_for(Path(folder, "started"))
        raise DataError("no rows")

    @dag
    def breaks(folder: str) -> list[int]:
        return [add(together.endless(folder)), breaks_later(folder)]

    ran = run(breaks, folder=str(tmp_path))
    assert isinstance(ran.error, DataError)
    assert ran.states == {"breaks_later": "failed", "endless": "failed", "add": "skipped"}
    assert (tmp_path / "unwound").exists()
    assert happened[-2:] == ["cancelled a", "closed a"]


# ── Interrupts ───────────────────────────────────────────────────────────────────────────────────


def runs_of(flow_run_name: str) -> list[TaskRun]:
    with get_client(sync_client=True) as client:
        named = FlowRunFilter(name=FlowRunFilterName(any_=[flow_run_name]))
        return client.read_task_runs(flow_run_filter=named)


def wait_until_ended(flow_run_name: str, names: set[str]) -> None:
    """Until the server says that each of these task runs, and no other, is over."""
    deadline = time.monotonic() + together.DEADLINE_S
    while True:
        runs = runs_of(flow_run_name)
        if {run.name for run in runs if run.state is not None and run.state.is_final()} == names:
            return
        assert time.monotonic() < deadline, [(run.name, run.state_name) for run in runs]
        time.sleep(0.1)


def test_an_interrupt_ends_resources_threads_and_task_runs(prefect_api: str, tmp_path: Path) -> None:
    """Ctrl-C: leases first, then the tasks' threads; nothing is left "Running"."""
    assert GRACE_S + STOP_S < 20, "the worst case; a Spark job or a rank that is cancelled ends at once"
    with process("be_stopped", tmp_path, prefect_api) as started:
        together.wait_for(tmp_path / "one" / "started")
        together.wait_for(tmp_path / "two" / "started")
        started.send_signal(signal.SIGINT)
        assert started.wait(together.DEADLINE_S) != 0
    assert (tmp_path / "one" / "unwound").exists()
    assert (tmp_path / "two" / "unwound").exists()
    happened = (tmp_path / "happened").read_text().splitlines()
    assert "cancelled a" in happened
    assert happened[-1] == "closed a"
    assert not (tmp_path / "after").exists()
    (record,) = (home() / "runs").glob("*/run.json")
    assert '"state": "failed: ' in record.read_text()
    wait_until_ended(record.parent.name, {"one", "two"})


def test_a_cancel_in_the_ui_ends_a_run_that_no_worker_started(prefect_api: str, tmp_path: Path) -> None:
    """As Ctrl-C does, and the flow run is then cancelled, not crashed."""
    with process("be_stopped", tmp_path, prefect_api) as started:
        together.wait_for(tmp_path / "one" / "started")
        together.wait_for(tmp_path / "two" / "started")
        (record,) = (home() / "runs").glob("*/run.json")
        flow_run_id = UUID(read_run(record.parent.name)["flow_run_id"])
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run_id, Cancelling())
            assert started.wait(together.DEADLINE_S) != 0
            ended = client.read_flow_run(flow_run_id)
    assert (ended.state_name, ended.name) == ("Cancelled", record.parent.name)
    assert "cancelled a" in (tmp_path / "happened").read_text().splitlines()
    wait_until_ended(record.parent.name, {"one", "two"})


def left_of(variable: str, value: str) -> list[str]:
    """Processes that have this in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(variable) == value:
                found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.spark
@pytest.mark.parametrize("door", ["Ctrl-C", "the UI"])
def test_a_spark_that_never_comes_holds_up_neither_the_end_of_a_task_nor_that_of_a_run(
    prefect_api: str, tmp_path: Path, door: str
) -> None:
    """A JVM may wait for its cluster for minutes. One task has no time for that; then a run is stopped."""
    (tmp_path / "tmp").mkdir()
    spark = never_ready(tmp_path) | {"TMPDIR": str(tmp_path / "tmp")}
    with process("wait_for_spark", tmp_path, prefect_api, **spark) as started:
        together.wait_for(tmp_path / "submitted again")
        late, stopped = sorted((home() / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime)
        if door == "Ctrl-C":
            started.send_signal(signal.SIGINT)
        else:
            with get_client(sync_client=True) as client:
                flow_run_id = UUID(read_run(stopped.name)["flow_run_id"])
                client.set_flow_run_state(flow_run_id, Cancelling())
        assert started.wait(together.DEADLINE_S) != 0
    (task_run,) = read_run(late.name)["nodes"]
    assert task_run["error"].startswith("TaskTimeoutError: task impatient took too long")
    wait_until_ended(late.name, {"impatient"})
    wait_until_ended(stopped.name, {"on_spark"})
    assert left_of("ML_PLATFORM_HOME", str(home())) == []
    assert [*(home() / "scratch").iterdir(), *(tmp_path / "tmp").iterdir()] == []


@pytest.mark.long
def test_a_call_that_nothing_interrupts_keeps_neither_the_process_nor_its_task_run(
    prefect_api: str, tmp_path: Path
) -> None:
    """A task that waits in C, for a socket or a child, cannot be unwound. The process ends all the same."""
    with process("hang", tmp_path, prefect_api) as started:
        together.wait_for(tmp_path / "hangs")
        together.wait_for(tmp_path / "other" / "started")
        started.send_signal(signal.SIGINT)
        assert started.wait(together.DEADLINE_S) != 0
    (record,) = (home() / "runs").glob("*/run.json")
    wait_until_ended(record.parent.name, {"hangs", "other"})
    nodes = {node["node"]: node for node in read_run(record.parent.name)["nodes"]}
    assert nodes["hangs"]["error"].startswith("it could not be interrupted")
    assert nodes["other"]["error"].startswith("Interrupted")


# ── What a task gives ────────────────────────────────────────────────────────────────────────────


class Frame:
    """Something that is no JSON."""


class Labelled(Number):
    label: str = ""


@task
def makes_frame(n: int) -> Frame:
    return Frame()


@task
def looks_at(frame: Frame) -> str:
    return type(frame).__name__


@task
def makes_more(n: int) -> Number:
    """A subclass of what it says: stored as the parent, its label would be lost."""
    return Labelled(value=n, label="kept")


@task
def label_of(number: Number) -> str:
    return getattr(number, "label", "lost")


@task
def makes_nan(n: int) -> dict[str, float]:
    return {"loss": float("nan"), "best": float("inf")}


def test_what_is_no_json_is_made_each_time_and_that_is_said(run: Runner) -> None:
    @dag
    def frames(n: int = 1) -> str:
        return looks_at(makes_frame(n))

    for _ in range(2):
        ran = run(frames)
        assert ran.output == "Frame"
        assert ran.states == {"makes_frame": "done", "looks_at": "done"}
        assert any("its result is not kept" in event.message for event in ran.events)


def test_what_would_come_back_as_less_is_not_kept(run: Runner) -> None:
    @dag
    def labelled(n: int = 1) -> str:
        return label_of(makes_more(n))

    assert [run(labelled).output for _ in range(2)] == ["kept", "kept"]


def test_numbers_that_json_does_not_know_are_kept(run: Runner) -> None:
    @dag
    def diverged(n: int = 1) -> dict[str, float]:
        return makes_nan(n)

    first, second = run(diverged), run(diverged)
    assert second.states == {"makes_nan": "cached"}
    assert repr(first.output) == repr(second.output) == "{'loss': nan, 'best': inf}"


def test_a_task_that_returns_what_its_type_does_not_say_is_refused(run: Runner, tmp_path: Path) -> None:
    """Once: the same again would not help. And nothing of it is kept."""

    @task(retries=3)
    def lies(file: str) -> list[Number]:
        note.fn(file)
        return [Number(value=1), 2]  # type: ignore[list-item]

    @dag
    def believes(file: str) -> list[Number]:
        return lies(file)

    for tries in (1, 2):
        ran = run(believes, file=str(tmp_path / "tries"))
        assert isinstance(ran.error, GraphError)
        assert "task lies returned what its type does not say" in str(ran.error)
        assert "(1)" in str(ran.error), "says where in the value"
        assert lines_of(tmp_path / "tries") == tries


def content(path: str) -> str:
    return Path(path).read_text()


@task(probe=content)
def appends(path: str) -> int:
    """Changes what its own probe looks at."""
    return Path(path).write_text(content(path) + "x")


def test_a_result_is_not_kept_when_what_it_read_moved_meanwhile(run: Runner, tmp_path: Path) -> None:
    """Nobody knows which of the two contents it saw."""

    @dag
    def moving(path: str) -> int:
        return appends(path)

    path = tmp_path / "file"
    path.write_text("x")
    for expected in (2, 3):
        ran = run(moving, path=str(path))
        assert ran.output == expected
        assert ran.states == {"appends": "done"}
        assert any("what it reads was changed while it ran" in event.message for event in ran.events)


def test_a_probe_that_fails_after_the_task_takes_nothing_back(run: Runner, tmp_path: Path) -> None:
    @task(probe=content)
    def removes(path: str) -> int:
        Path(path).unlink()
        return 1

    @dag
    def removing(path: str) -> int:
        return removes(path)

    (tmp_path / "file").write_text("x")
    assert run(removing, path=str(tmp_path / "file")).output == 1


def test_a_store_that_cannot_be_written_keeps_nothing_and_loses_nothing(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dag
    def adds(n: int = 1) -> int:
        return add(add(n))

    (tmp_path / "file").touch()
    monkeypatch.setenv("ML_PLATFORM_STORE", str(tmp_path / "file" / "store"))
    for _ in range(2):
        ran = run(adds)
        assert ran.output == 3
        assert ran.executed == {"add", "add-2"}
        assert any("its result is not kept" in event.message for event in ran.events)


# ── Records and events ───────────────────────────────────────────────────────────────────────────


@dag
def everything(n: int = 2) -> list[Any]:
    with when(is_even(n)):
        inside = add(n)
    return [say(inside), number(n), add.with_options(cache=False, name="always")(n)]


def test_the_record_has_every_node_with_its_keys_and_reason(run: Runner) -> None:
    run(everything, n=2)
    first = run(everything, n=3).nodes
    second = run(everything, n=3).nodes
    assert {name: node["state"] for name, node in first.items()} == {
        **dict.fromkeys(("is_even", "say", "number", "always"), "completed"),
        "add": "skipped",
    }
    assert first["number"]["reason"] == "parameter value: 2 → 3"
    assert first["add"]["reason"] == "not taken: only if is_even is True"
    assert second["number"]["reason"] == "from run-2"
    assert {name: node["state"] for name, node in second.items()} == {
        **dict.fromkeys(("is_even", "say", "number"), "cached"),
        "add": "skipped",
        "always": "completed",
    }
    for node in (*first.values(), *second.values()):
        if node["state"] != "skipped":
            assert len(node["own"]) == len(node["inputs"]) == 64
            assert node["parts"]
            assert "output" in node
            assert node["seconds"] >= 0
    assert first["number"]["own"] == second["number"]["own"]


def test_the_record_of_a_failed_run_says_how_far_it_came(run: Runner, tmp_path: Path) -> None:
    nodes = run(two_branches, folder=str(tmp_path), engine=EngineSpec(on_failure="finish")).nodes
    assert nodes["fails"]["state"] == "failed"
    assert nodes["fails"]["error"] == "DataError: on purpose"
    assert len(nodes["fails"]["own"]) == 64
    assert nodes["note"]["state"] == "completed"
    assert nodes["add"]["state"] == "skipped"


@dag
def fans(n: int = 2) -> int:
    return total(map_over(add, count_to(n)))


@pytest.mark.parametrize("n", [0, 2])
def test_whoever_watches_sees_every_node_end(run: Runner, n: int) -> None:
    ran = run(fans, n=n)
    waiting = {event.node for event in ran.events if event.state == "waiting"}
    ended = {event.node for event in ran.events if event.state in ENDED}
    assert waiting <= ended


# ── The Prefect face ─────────────────────────────────────────────────────────────────────────────


@task(cache=False)
def run_name() -> str:
    return str(flow_run.name)


@dag
def shown(n: int = 2) -> str:
    with when(is_even(add(n))):
        add(number(n).value)
    return run_name()


def recorded(name: str) -> dict[str, TaskRun]:
    """Task runs of a flow run by name, once the server has them all."""
    with get_client(sync_client=True) as client:
        (found,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
        assert found.id in flow_runs_of_this_process()
        assert wait_until_recorded([found.id], timeout_s=60)
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[found.id])))
    return {run.name: run for run in runs}


@pytest.mark.usefixtures("prefect_api")
def test_cached_and_skipped_nodes_are_task_runs_with_edges() -> None:
    shown(n=2)
    runs = recorded(shown(n=2))
    assert {name: run.state_name for name, run in runs.items()} == {
        **dict.fromkeys(("add", "is_even"), "Cached"),
        **dict.fromkeys(("number", "add-2"), "Skipped"),
        "run_name": "Completed",
    }
    assert all(run.state is not None and run.state.is_completed() for run in runs.values())
    parents = {
        run.name: {p: [i.id for i in found] for p, found in run.task_inputs.items()} for run in runs.values()
    }
    assert parents["is_even"] == {"n": [runs["add"].id]}
    assert parents["add-2"] == {"x": [runs["number"].id]}


@pytest.mark.usefixtures("prefect_api")
def test_many_cached_nodes_are_left_to_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand task runs that did nothing would cost more than the run."""
    monkeypatch.setattr("ml_platform.engine.run.SHOWN_CACHED_NODES", 1)
    shown(n=2)
    assert set(recorded(shown(n=2))) == {"run_name", "number", "add-2"}


# ── Several at once ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("prefect_api")
def test_several_dags_run_in_one_process_at_once() -> None:
    """Each has its own trace, resources and results; planning beside them is harmless."""
    meet = threading.Barrier(3)

    @task(cache=False)
    def wait_for_all(n: int) -> int:
        meet.wait(30)
        return n

    @dag
    def one_of_three(n: int) -> list[int]:
        return [add(wait_for_all(n), n), *[add(n, by) for by in range(3)]]

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(copy_context().run, one_of_three, n) for n in (10, 20, 30)]
        assert [each.result()[0] for each in asked] == [20, 40, 60]


def test_a_plan_beside_a_run_lets_it_run(prefect_api: str, tmp_path: Path) -> None:
    """Threads that the other run starts meanwhile are none of the planned dag's."""
    with process("plan_meanwhile", tmp_path, prefect_api) as started:
        assert started.wait(120) == 0, started.stderr and started.stderr.read()
    assert (tmp_path / "survived").exists()
