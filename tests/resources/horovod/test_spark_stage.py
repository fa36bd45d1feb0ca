"""Ranks in a barrier stage: what ends them, what they leave, and that no slot is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from ml_platform.errors import RankError, ResourceStartError
from ml_platform.resources import progress
from ml_platform.resources.horovod import barrier_stage, gang_job, open_job, plan_launch, spark_stage
from ml_platform.resources.horovod.gang_job import GangJob
from ml_platform.resources.horovod.plan import LaunchPlan
from ml_platform.resources.horovod.spark_stage import start_job
from ml_platform.resources.leases import Leases, Scope
from ml_platform.specs.placements import HorovodPlacement, Placement, SparkPlacement
from ml_platform.specs.resources import HorovodSpec, SparkSpec
from tests.gangs import light_job
from tests.worker import rank_functions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.horovod]


def ranks_of(job: GangJob) -> list[psutil.Process]:
    assert job._gang is not None
    return [psutil.Process(rank.handle.pid) for rank in job._gang.ranks]


def test_a_rank_that_is_killed_or_exits_is_told_and_replaced(spark: SparkSession, tmp_path: Path) -> None:
    """As on this machine: by which signal or code, with its last words; and the next job runs."""
    job = light_job(tmp_path, backend="spark")
    try:
        with pytest.raises(RankError, match=r"rank 0 of 1 on .* died in tests") as killed:
            job.run(rank_functions.kill_oneself, 0, signal.SIGKILL)
        with pytest.raises(RankError) as left:
            job.run(rank_functions.leave, 7)
        assert job.run(rank_functions.identity).rank0 == (0, 1, ())
    finally:
        job.close()
    assert killed.value.got == "it was killed by signal 9"
    assert "the last words of the rank" in (killed.value.evidence or "")
    assert left.value.got == "it exited with 7"


def test_two_ranks_train_together_and_the_one_that_fails_is_named(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Over Gloo, from two tasks of one stage; the other rank's complaint is not what is told."""
    spec = HorovodSpec(ranks=2, backend="spark")
    with open_job(spec, HorovodPlacement(), log_folder=tmp_path) as job:
        assert list(job.run(rank_functions.identity)) == [(0, 2, ()), (1, 2, ())]
        with pytest.raises(RankError, match=r"rank 1 of 2 on .* raised ValueError"):
            job.run(rank_functions.raise_value_error, 1)


def test_a_stopped_rank_falls_silent_and_is_ended(spark: SparkSession, tmp_path: Path) -> None:
    job = light_job(tmp_path, backend="spark", heartbeat_timeout_s=3)
    try:
        assert job._gang is not None
        gang = job._gang
        _wait_until(lambda: len(gang.ranks) == 1 and gang.ranks[0].handle.pid)
        stopped = ranks_of(job)
        with pytest.raises(RankError, match=r"rank 0 of 1 on .* fell silent in tests"):
            job.run(rank_functions.kill_oneself, 0, signal.SIGSTOP)
    finally:
        job.close()
    assert not any(_lives(rank) for rank in stopped)


def test_a_rank_does_not_outlive_its_spark_task(spark: SparkSession, tmp_path: Path) -> None:
    """Spark may kill the worker that keeps a rank; the kernel then ends the rank, idle or not."""
    job = light_job(tmp_path, backend="spark")
    try:
        job.run(rank_functions.identity)
        rank = ranks_of(job)[0]
        keeper = rank.parent()
        assert keeper is not None
        keeper.kill()
        _wait_until(lambda: not _lives(rank))
        assert job.run(rank_functions.identity).rank0 == (0, 1, ())
    finally:
        job.close()


def test_closed_ranks_leave_their_slots_and_no_process(spark: SparkSession, tmp_path: Path) -> None:
    """Both slots, also those of ranks that were still starting."""
    job = light_job(tmp_path, backend="spark", ranks=2)
    job.close()
    job = light_job(tmp_path, backend="spark", ranks=2)
    assert job._gang is not None
    gang = job._gang
    _wait_until(lambda: len(gang.ranks) == 2 and all(rank.handle.pid for rank in gang.ranks))
    ranks = ranks_of(job)
    job.close()
    assert not any(_lives(rank) for rank in ranks)
    assert spark.range(10).repartition(2).count() == 10


def test_a_run_listens_where_it_should_and_nowhere_else(spark: SparkSession, tmp_path: Path) -> None:
    """The driver: its door and, while a job runs, the rendezvous. On loopback."""
    before = _listening(psutil.Process())
    job = light_job(tmp_path, backend="spark")
    try:
        job.run(rank_functions.identity)
        assert job._gang is not None
        door = ("127.0.0.1", job._gang._listener.port)  # type: ignore[attr-defined]
        assert _listening(psutil.Process()) - before == {door}
        seen: list[set[tuple[str, int]]] = []
        job.run(
            rank_functions.report,
            1,
            on_metrics=lambda values, step: seen.append(_listening(psutil.Process()) - before - {door}),
        )
        assert [{host for host, _ in found} for found in seen] == [{"127.0.0.1"}]
        assert [len(found) for found in seen] == [1]
        assert _listening(ranks_of(job)[0]) == set()
    finally:
        job.close()
    assert _listening(psutil.Process()) == before


def test_no_secret_in_arguments_environment_or_plan(spark: SparkSession, tmp_path: Path) -> None:
    job = light_job(tmp_path, backend="spark")
    try:
        job.run(rank_functions.identity)
        assert job._gang is not None
        channel = job._gang.ranks[0].channel
        assert channel is not None
        keys = [channel._key, job._gang._key]  # type: ignore[attr-defined]
        process = ranks_of(job)[0]
        log = (tmp_path / "rank-0.log").read_text()
        shown = " ".join([*process.cmdline(), *process.environ().values(), str(job.plan), log])
        assert not [key for key in keys if key.hex() in shown or repr(key) in shown]
    finally:
        job.close()


def test_the_plan_says_where_each_rank_is(spark: SparkSession, tmp_path: Path) -> None:
    """Before the launch: where Spark gives a slot; once it is known, the machine and its interface."""
    job = light_job(tmp_path, backend="spark")
    try:
        job.run(rank_functions.identity)
        rank = job.plan.ranks[0]
        assert rank.environment["HOROVOD_GLOO_IFACE"] == "lo"
        assert rank.environment["HOROVOD_GLOO_RENDEZVOUS_ADDR"] == "127.0.0.1"
        assert rank.environment["HOROVOD_HOSTNAME"] == "127.0.0.1"
        assert f"rank 0: {os.uname().nodename}, local rank 0" in str(job.plan)
    finally:
        job.close()


def test_ranks_that_their_tasks_cannot_start_are_told_with_why(spark: SparkSession, tmp_path: Path) -> None:
    """When it happens, not when the time to start is over; and the stage is not run again."""
    job = light_job(tmp_path, backend="spark")
    job.close()
    rank = job.plan.ranks[0].model_copy(update={"environment": {"A": "a\0b"}})
    plan = job.plan.model_copy(update={"ranks": (rank,), "start_timeout_s": 600})
    job = spark_stage.start_job(plan)
    try:
        with pytest.raises(ResourceStartError, match="1 ranks did not start on") as caught:
            job.run(rank_functions.identity)
    finally:
        job.close()
    assert caught.value.got == "missing ranks 0"
    assert "ValueError: embedded null byte" in (caught.value.evidence or "")


def test_whatever_spark_fails_with_ends_the_launch(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its JVM is gone, say: an error of its own kind must not leave the caller waiting for ranks."""

    def gone(session: object) -> int:
        raise RuntimeError("An error occurred\nin the JVM")

    monkeypatch.setattr(spark_stage, "slots", gone)
    job = light_job(tmp_path, backend="spark")
    try:
        with pytest.raises(ResourceStartError, match="Spark did not start the tasks of the ranks") as caught:
            job.run(rank_functions.identity)
    finally:
        job.close()
    assert caught.value.got == "RuntimeError: An error occurred"


def test_more_ranks_than_slots_are_refused_with_the_numbers(spark: SparkSession, tmp_path: Path) -> None:
    """At once: Spark itself would look for slots for ten minutes."""
    job = light_job(tmp_path, backend="spark", ranks=3)
    try:
        with pytest.raises(
            ResourceStartError, match=r"3 ranks cannot start together on local\[2\]"
        ) as caught:
            job.run(rank_functions.identity)
    finally:
        job.close()
    assert (caught.value.wanted, caught.value.got) == ("3 slots, one per rank", "2 slots")


@pytest.mark.long
def test_slots_that_others_hold_are_told_with_their_numbers(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they are waited for, and when the time to start is over: who holds how many of how many."""
    monkeypatch.setattr(gang_job, "SAY_S", 0.0)
    released = tmp_path / "released"
    rows = spark.range(0, 1, 1, 1).mapInArrow(partial(_until_there, str(released)), "id long")
    other = threading.Thread(target=rows.collect)
    other.start()
    _wait_until(lambda: bool(barrier_stage.busy_slots(spark, besides="nobody")))
    try:
        hasty = start_job(_two_ranks(tmp_path).model_copy(update={"start_timeout_s": 3.0}))
        with pytest.raises(ResourceStartError, match="2 ranks did not start") as caught:
            hasty.run(rank_functions.identity)
        hasty.close()
        words = r"of Spark's 2 slots 1 are held: 1 by collect at .*"
        assert re.search(rf"missing ranks 0, 1; 0 of 2 tasks have a slot; {words}", str(caught.value))
        patient, heard = start_job(_two_ranks(tmp_path)), []
        with progress.listening(lambda said: (heard.append(said.message), released.touch())):
            assert len(patient.run(rank_functions.identity)) == 2
        patient.close()
        assert re.fullmatch(f"2 ranks wait for slots: {words}", heard[0])
    finally:
        released.touch()
        other.join()


def _two_ranks(folder: Path) -> LaunchPlan:
    return plan_launch(HorovodSpec(ranks=2, backend="spark"), HorovodPlacement(), folder, preload=False)


def _until_there(path: str, batches: Iterable[Any]) -> Iterator[Any]:
    deadline = time.monotonic() + 120
    while not Path(path).exists() and time.monotonic() < deadline:
        signal.sigtimedwait([], 0.05)
    yield from batches


def test_spark_work_does_not_wait_behind_an_idle_gang(spark: SparkSession) -> None:
    """Two idle ranks hold both slots: they are closed before a task gets its session."""
    placement = Placement(
        spark=SparkPlacement(master="local[2]"), horovod=HorovodPlacement(backend="spark", ranks=2)
    )
    leases = Leases(Scope(name="test", run="idle-gang", placement=placement))
    gang = leases.resolve({"job": HorovodSpec()})["job"]
    try:
        leases.start([gang])
        tracker = spark.sparkContext.statusTracker()
        _wait_until(lambda: any(_running(tracker, stage) == 2 for stage in tracker.getActiveStageIds()))
        with leases.open({"spark": SparkSpec()}, task="count") as opened:
            assert opened["spark"].range(10).repartition(2).count() == 10
        _wait_until(lambda: not tracker.getActiveStageIds())
        leases.start([gang, SparkSpec()])
        assert not leases._kept, "ranks that would only be in the way are not started ahead"
    finally:
        leases.close()
    assert spark.range(3).count() == 3


def _running(tracker: object, stage: int) -> int:
    found = tracker.getStageInfo(stage)  # type: ignore[attr-defined]
    return 0 if found is None else int(found.numActiveTasks)


DRIVER = """
import signal, sys
from pathlib import Path
from ml_platform.resources.spark import open_session
from ml_platform.specs.placements import SparkPlacement
from tests.gangs import light_job
from tests.worker import rank_functions
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
folder = Path(sys.argv[1])
with open_session(SparkPlacement(master="local[2]", driver_memory_mib=512), log_folder=folder) as spark:
    job = light_job(folder, backend="spark")
    job.run(rank_functions.identity)
    print(job._gang.ranks[0].handle.pid, spark.sparkContext._gateway.proc.pid, flush=True)
    job.run(rank_functions.endless, folder / "marker")
"""


@pytest.mark.long
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_nothing_outlives_the_driver(tmp_path: Path, sign: signal.Signals) -> None:
    """Neither the rank in the middle of its work, nor its keeper, nor the JVM; from the process table."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as driver:
        assert driver.stdout is not None
        rank, jvm = (psutil.Process(int(pid)) for pid in driver.stdout.readline().split())
        _wait_until((tmp_path / "marker").exists)
        family = [*psutil.Process(driver.pid).children(recursive=True)]
        assert {rank.pid, jvm.pid} <= {process.pid for process in family}
        driver.send_signal(sign)
    _wait_until(lambda: not any(_lives(process) for process in family), timeout_s=10)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _listening(process: psutil.Process) -> set[tuple[str, int]]:
    found = process.net_connections(kind="inet")
    return {tuple(c.laddr) for c in found if c.status == psutil.CONN_LISTEN}


def _wait_until(holds: object, timeout_s: float = 120) -> None:
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        pause.wait(0.02)
