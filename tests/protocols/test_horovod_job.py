"""What every backend of `HorovodJob` promises, on every backend."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from ml_platform.errors import DataError, RankError, SpecError
from ml_platform.resources import progress
from ml_platform.resources.horovod import BACKENDS, open_job
from ml_platform.resources.horovod.in_process import InProcessJob
from ml_platform.resources.horovod.job import HorovodJob
from ml_platform.resources.leases import Leases, Scope
from ml_platform.specs.placements import HorovodPlacement, Placement
from ml_platform.specs.resources import BackendRow, HorovodSpec
from tests.gangs import light_job, warm_pair
from tests.worker import rank_functions

pytestmark = pytest.mark.horovod


NEEDS: dict[str, list[pytest.MarkDecorator]] = {"spark": [pytest.mark.spark]}
EACH = [pytest.param(name, marks=NEEDS.get(name, [])) for name in sorted(BACKENDS)]


@pytest.fixture(params=[*EACH, "two processes"])
def healthy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HorovodJob]:
    """A job that a test leaves as it found it."""
    if request.param == "two processes":
        yield warm_pair()
    else:
        yield from _job(request, tmp_path)


@pytest.fixture(params=EACH)
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HorovodJob]:
    """A job of one rank that a test may break."""
    yield from _job(request, tmp_path)


def _job(request: pytest.FixtureRequest, folder: Path) -> Iterator[HorovodJob]:
    if request.param == "spark":
        request.getfixturevalue("spark")
    if request.param == "in_process":
        with open_job(HorovodSpec(backend="in_process"), HorovodPlacement(), log_folder=folder) as job:
            yield job
        return
    light = light_job(folder, backend=request.param)
    yield light
    light.close()


def test_run_returns_every_ranks_value(healthy: HorovodJob) -> None:
    results = healthy.run(rank_functions.identity, "a", 2)
    assert list(results) == [(rank, healthy.ranks, ("a", 2)) for rank in range(healthy.ranks)]
    assert results.rank0 == (0, healthy.ranks, ("a", 2))


def test_function_of_the_caller_travels_by_value(healthy: HorovodJob) -> None:
    bonus = 40
    assert healthy.run(lambda rank, a: a + bonus, 2).rank0 == 42


def test_metrics_and_progress_are_heard_in_order_in_the_callers_thread(healthy: HorovodJob) -> None:
    """Rank 0's alone; values that are no numbers are left out."""
    metrics: list[tuple[dict[str, float], int, threading.Thread]] = []
    notes: list[progress.Progress] = []
    with progress.listening(notes.append):
        healthy.run(
            rank_functions.report,
            3,
            on_metrics=lambda values, step: metrics.append((dict(values), step, threading.current_thread())),
        )
    here = threading.current_thread()
    assert metrics == [({"loss": 1.0 / (step + 1)}, step, here) for step in range(3)]
    assert [(note.message, note.done, note.total) for note in notes] == [
        (f"step {step}/3", step, 3) for step in (1, 2, 3)
    ]


def test_without_a_listener_reports_go_nowhere(healthy: HorovodJob) -> None:
    assert isinstance(healthy.run(rank_functions.report, 1).rank0, int)


def test_log_lines_go_to_the_ranks_file(job: HorovodJob, tmp_path: Path) -> None:
    job.run(rank_functions.report, 1)
    assert "a line for the log" in (tmp_path / "rank-0.log").read_text()


def test_a_submitted_job_streams_metrics_and_log_while_it_runs(job: HorovodJob, tmp_path: Path) -> None:
    """The first metric is heard before the job ends; the log holds this job's lines and no earlier one's."""
    job.run(rank_functions.report, 1)
    release = tmp_path / "release"
    submitted = job.submit(rank_functions.report_until, release)
    metrics = submitted.metrics()
    assert next(metrics) == (0, {"loss": 1.0})
    assert not submitted.done()
    release.touch()
    assert next(metrics) == (1, {"loss": 0.5})
    assert list(metrics) == []
    assert submitted.result().rank0 == "released"
    assert list(submitted.metrics()) == [(0, {"loss": 1.0}), (1, {"loss": 0.5})]
    lines = list(submitted.log(0))
    assert "a line of the second job" in lines
    assert "a line for the log" not in lines


def test_a_submitted_job_streams_what_each_rank_logs(healthy: HorovodJob) -> None:
    """And `on_metrics`, which tracking runs hear, gets rank 0's alone."""
    submitted = healthy.submit(rank_functions.report_own)
    streams = [list(submitted.metrics(rank)) for rank in range(healthy.ranks)]
    assert streams == [[(0, {"loss": rank}), (1, {"loss": rank + 0.5})] for rank in range(healthy.ranks)]
    heard: list[tuple[int, dict[str, float]]] = []
    healthy.run(rank_functions.report_own, on_metrics=lambda values, step: heard.append((step, dict(values))))
    assert heard == streams[0]


def test_a_submitted_job_fails_as_run_does(job: HorovodJob) -> None:
    with pytest.raises(DataError, match="a column is empty"):
        job.submit(rank_functions.raise_data_error).result()


def test_ranks_stay_for_the_next_job(healthy: HorovodJob) -> None:
    first = healthy.run(rank_functions.report, 0)
    assert healthy.run(rank_functions.report, 0) == first


def test_exception_arrives_with_type_message_traceback_and_log(job: HorovodJob, tmp_path: Path) -> None:
    with pytest.raises(RankError) as caught:
        job.run(rank_functions.raise_value_error)
    text = str(caught.value)
    assert "rank 0 of 1 on" in caught.value.what
    assert "raised ValueError in tests.worker.rank_functions.raise_value_error" in caught.value.what
    assert caught.value.got == "seven is not even"
    assert 'raise ValueError("seven is not even")' in text
    assert f"log: {tmp_path / 'rank-0.log'} (last" in text
    assert text.count("Traceback (most recent call last)") == 1


def test_platform_error_keeps_its_type_and_exit_code(job: HorovodJob) -> None:
    with pytest.raises(DataError) as caught:
        job.run(rank_functions.raise_data_error)
    error = caught.value
    assert (error.what, error.wanted, error.got, error.hint) == (
        "a column is empty",
        "numbers",
        "nothing",
        "fill it",
    )
    assert "raised by tests.worker.rank_functions.raise_data_error on rank 0 of 1 on" in (
        error.evidence or ""
    )
    assert error.exit_code == 3


def test_an_error_of_a_class_that_the_driver_does_not_have_is_of_the_platforms_class_below(
    job: HorovodJob,
) -> None:
    """It keeps its exit code and its words. One without words arrives, too."""

    class NoRowsError(DataError):
        def __init__(self, rows: int) -> None:
            super().__init__("the table is empty", got=f"{rows} rows")

    class WordlessError(Exception):
        def __str__(self) -> str:
            raise NotImplementedError

    def fail(rank: object, wordless: bool) -> None:
        raise WordlessError() if wordless else NoRowsError(0)

    with pytest.raises(DataError, match="the table is empty") as caught:
        job.run(fail, False)
    assert (type(caught.value), caught.value.got) == (DataError, "0 rows")
    with pytest.raises(RankError, match="raised WordlessError in") as told:
        job.run(fail, True)
    assert told.value.got == "(its text cannot be made: NotImplementedError)"


def test_two_callers_of_one_job_take_turns(healthy: HorovodJob) -> None:
    """Each gets its own answer, and the second begins when the first has ended."""
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda name: healthy.run(rank_functions.spans, name), ("a", "b")))
    assert [{name for name, _, _ in run} for run in runs] == [{"a"}, {"b"}]
    (first, second) = sorted(
        (min(start for _, start, _ in run), max(end for _, _, end in run)) for run in runs
    )
    assert first[1] <= second[0]


def test_after_a_failure_the_next_run_works(job: HorovodJob) -> None:
    with pytest.raises(DataError):
        job.run(rank_functions.raise_data_error)
    assert job.run(rank_functions.identity).rank0 == (0, 1, ())


def test_listener_that_raises_ends_the_job(job: HorovodJob) -> None:
    """Its error is the caller's, and the next run works."""

    def refuse(values: object, step: int) -> None:
        raise OSError("no tracking server")

    with pytest.raises(OSError, match="no tracking server"):
        job.run(rank_functions.report, 3, on_metrics=refuse)
    assert job.run(rank_functions.identity).rank0 == (0, 1, ())


def test_function_that_cannot_be_sent_costs_no_rank(healthy: HorovodJob) -> None:
    """Refused before anything is sent; the ranks stay."""
    lock = threading.Lock()
    with pytest.raises(SpecError, match="closure variable 'lock' cannot be pickled"):
        healthy.run(lambda rank: lock.acquire())
    with pytest.raises(SpecError, match="too large to be sent to ranks"):
        healthy.run(rank_functions.identity, b"x" * (65 << 20))
    assert healthy.run(rank_functions.identity).rank0 == (0, healthy.ranks, ())


def test_result_that_cannot_be_pickled(job: HorovodJob) -> None:
    with pytest.raises(RankError, match="unpicklable returned a value that cannot be pickled"):
        job.run(rank_functions.unpicklable)


def test_cancel_from_another_thread_ends_run_and_every_later_one(job: HorovodJob, tmp_path: Path) -> None:
    """The job has begun when it is cancelled: its first metric says so."""
    begun = threading.Event()
    canceller = threading.Thread(target=lambda: begun.wait(60) and job.cancel())
    canceller.start()
    with pytest.raises(RankError, match="the job was cancelled"):
        job.run(rank_functions.endless, tmp_path / "marker", on_metrics=lambda values, step: begun.set())
    canceller.join()
    assert job.backend == "in_process" or not _lives(int((tmp_path / "marker").read_text()))
    with pytest.raises(RankError, match="the job was cancelled"):
        job.run(rank_functions.identity)


def test_close_is_idempotent(job: HorovodJob) -> None:
    job.run(rank_functions.identity)
    job.close()
    job.close()


class Upstairs(InProcessJob):
    """A backend of somebody else's."""


def test_a_backend_is_a_row_of_the_table_and_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes, placements and the engine's leases take it by its name; a name without a row is refused."""
    row = BackendRow(f"{__name__}:Upstairs", "process")
    with pytest.raises(ValidationError, match="no Horovod backend 'upstairs'; known: in_process, processes"):
        HorovodPlacement(backend="upstairs")
    monkeypatch.setitem(BACKENDS, "upstairs", row)
    placement = Placement(horovod=HorovodPlacement(backend="upstairs"))
    leases = Leases(Scope(name="test", run="test", placement=placement))
    with leases.open({"job": HorovodSpec()}, task="train") as opened:
        assert type(opened["job"]) is Upstairs
        assert opened["job"].run(rank_functions.identity).rank0 == (0, 1, ())
    leases.close()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
