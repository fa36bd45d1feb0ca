"""Ranks as child processes: what ends them, and that nothing outlives its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ml_platform.errors import RankError, ResourceStartError
from ml_platform.resources.horovod import open_job, plan_launch
from ml_platform.resources.horovod.gang_job import GangJob
from ml_platform.resources.horovod.plan import LaunchPlan
from ml_platform.resources.horovod.processes import ProcessGang, start_job
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import HorovodSpec
from ml_platform.worker import messages
from ml_platform.worker.channel import Channel
from ml_platform.worker.rank import Rank
from tests.gangs import light_job
from tests.worker import rank_functions

pytestmark = pytest.mark.horovod


def pids(job: GangJob) -> list[int]:
    assert job._gang is not None
    return [rank.handle.pid for rank in job._gang.ranks]


def test_killed_rank_is_noticed_with_its_last_words(tmp_path: Path) -> None:
    job = light_job(tmp_path)
    try:
        with pytest.raises(RankError, match=r"rank 0 of 1 on .* died in tests") as caught:
            job.run(rank_functions.kill_oneself, 0, signal.SIGKILL)
    finally:
        job.close()
    assert caught.value.got == "it was killed by signal 9"
    assert "the last words of the rank" in (caught.value.evidence or "")
    assert caught.value.hint == "see whether the machine ran out of memory"


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (rank_functions.exhaust_memory, "MemoryError"),
        (rank_functions.exhaust_memory_of_tensorflow, "ResourceExhaustedError"),
    ],
)
def test_rank_without_memory_says_so(function: Callable[[Rank], int], error: str, tmp_path: Path) -> None:
    job = light_job(tmp_path)
    try:
        with pytest.raises(RankError, match=rf"rank 0 of 1 on .* raised {error} in tests"):
            job.run(function)
    finally:
        job.close()


def test_rank_that_exits_is_noticed(tmp_path: Path) -> None:
    job = light_job(tmp_path)
    try:
        with pytest.raises(RankError) as caught:
            job.run(rank_functions.leave, 7)
    finally:
        job.close()
    assert caught.value.got == "it exited with 7"


def test_stopped_rank_falls_silent_and_is_ended(tmp_path: Path) -> None:
    """SIGTERM does not reach a stopped process; SIGKILL does."""
    job = light_job(tmp_path, heartbeat_timeout_s=2)
    ranks = pids(job)
    try:
        with pytest.raises(RankError, match=r"rank 0 of 1 on .* fell silent in tests") as caught:
            job.run(rank_functions.kill_oneself, 0, signal.SIGSTOP)
        assert not any(psutil.pid_exists(pid) for pid in ranks)
    finally:
        job.close()
    assert caught.value.wanted == "a sign of life within 2 s"


def test_ranks_that_are_too_old_or_too_large_are_replaced_before_the_next_job(tmp_path: Path) -> None:
    """Not in the middle of one; and the launch plan lies beside the logs."""
    for limits in ({"max_age_s": 1e-9}, {"max_memory_mib": 1}):
        job = start_job(_plan(tmp_path).model_copy(update=limits))
        try:
            before = pids(job)
            assert job._gang is not None
            job.run(rank_functions.identity)
            while not job._gang.ranks[0].memory_mib:
                os.sched_yield()
            assert job.run(rank_functions.report, 0).rank0 != before[0]
        finally:
            job.close()
    assert "1 rank(s), backend processes" in (tmp_path / "launch.txt").read_text()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_rank_that_was_ended_or_stopped_idle_is_replaced(tmp_path: Path, end: signal.Signals) -> None:
    """Also while the kernel still takes it apart: its connection looks open for so long."""
    job = light_job(tmp_path, heartbeat_timeout_s=2)
    try:
        job.run(rank_functions.identity)
        before = pids(job)
        os.kill(before[0], end)
        while end == signal.SIGSTOP and psutil.Process(before[0]).status() != psutil.STATUS_STOPPED:
            os.sched_yield()  # its threads may answer for a moment longer
        assert job.run(rank_functions.identity).rank0 == (0, 1, ())
        assert pids(job) != before
    finally:
        job.close()


def test_primary_failure_is_told_and_not_its_consequences(tmp_path: Path) -> None:
    """Rank 1 raises, then is killed, while rank 0 waits in Horovod: rank 1 is named both times."""
    with open_job(HorovodSpec(ranks=2), HorovodPlacement(), log_folder=tmp_path) as job:
        with pytest.raises(RankError) as caught:
            job.run(rank_functions.raise_value_error, 1)
        assert "rank 1 of 2 on" in caught.value.what
        assert "raised ValueError" in caught.value.what
        with pytest.raises(RankError) as caught:
            job.run(rank_functions.kill_oneself, 1, signal.SIGKILL)
        assert "rank 1 of 2 on" in caught.value.what
        assert caught.value.got == "it was killed by signal 9"
    assert not _ranks_under(tmp_path)


def test_close_ends_ranks_that_were_never_used(tmp_path: Path) -> None:
    job = light_job(tmp_path, ranks=2)
    started = pids(job)
    assert all(psutil.pid_exists(pid) for pid in started)
    job.close()
    assert not any(psutil.pid_exists(pid) for pid in started)
    with pytest.raises(RankError, match="the job is closed"):
        job.run(rank_functions.identity)


def test_each_rank_leads_a_group_of_its_own(tmp_path: Path) -> None:
    """A Ctrl-C in the terminal reaches the driver alone, which then ends its ranks in order."""
    job = light_job(tmp_path)
    try:
        assert [os.getpgid(pid) for pid in pids(job)] == pids(job)
    finally:
        job.close()


def test_ranks_that_do_not_start_are_told_with_their_log(tmp_path: Path) -> None:
    job = start_job(_with_command(_plan(tmp_path), "-c", "import sys; sys.exit('no such luck')"))
    try:
        with pytest.raises(ResourceStartError) as caught:
            job.run(rank_functions.identity)
    finally:
        job.close()
    assert caught.value.got == "missing ranks 0; rank 0 ended with exit code 1"
    assert "no such luck" in (caught.value.evidence or "")


def test_ranks_that_start_too_slowly(tmp_path: Path) -> None:
    plan = _with_command(_plan(tmp_path), "-c", "import signal; signal.pause()")
    job = start_job(plan.model_copy(update={"start_timeout_s": 0.2}))
    try:
        with pytest.raises(ResourceStartError, match="1 ranks did not start on") as caught:
            job.run(rank_functions.identity)
    finally:
        job.close()
    assert caught.value.wanted == "1 ranks ready within 0.2 s"


def test_command_that_does_not_exist(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    rank = plan.ranks[0].model_copy(update={"command": ("/no/such/python",)})
    with pytest.raises(ResourceStartError, match="ranks could not be started"):
        start_job(plan.model_copy(update={"ranks": (rank,)}))


@pytest.mark.parametrize("preload", [False, True])
def test_whatever_keeps_ranks_from_starting_is_told(tmp_path: Path, preload: bool) -> None:
    """Also what no operating system said: the thread that starts them must not leave the caller waiting."""
    plan = plan_launch(HorovodSpec(ranks=1), HorovodPlacement(), tmp_path, preload=preload)
    rank = plan.ranks[0].model_copy(update={"environment": {**plan.ranks[0].environment, "A": "a\0b"}})
    with pytest.raises(ResourceStartError, match="ranks could not be started") as caught:
        start_job(plan.model_copy(update={"ranks": (rank,)}))
    assert caught.value.got == "embedded null byte"


def test_rank_ends_at_a_message_of_a_stranger(tmp_path: Path) -> None:
    """Not signed with the key: the rank ends without having opened it."""
    gang = ProcessGang(_plan(tmp_path))
    try:
        rank = gang.ranks[0]
        assert rank.channel is not None
        stranger = Channel(rank.channel._connection, b"s" * 32, side="driver")
        stranger.send(
            messages.Job(1, "f", b"cos\nmkdir\n(V" + str(tmp_path / "sprung").encode() + b"\ntR.", {})
        )
        assert rank.handle.exit_code(30) == 75
    finally:
        gang.close()
    assert not (tmp_path / "sprung").exists()
    assert "not signed with this job's key" in (tmp_path / "rank-0.log").read_text()


def test_no_secret_in_arguments_or_environment(tmp_path: Path) -> None:
    job = light_job(tmp_path)
    try:
        job.run(rank_functions.identity)
        assert job._gang is not None
        rank = job._gang.ranks[0]
        assert rank.channel is not None
        key = rank.channel._key
        process = psutil.Process(rank.handle.pid)
        shown = " ".join([*process.cmdline(), *process.environ().values(), str(job._plan)])
        assert key.hex() not in shown
        assert repr(key) not in shown
    finally:
        job.close()


DRIVER = """
import signal, sys
from pathlib import Path
from ml_platform.worker.rank import Rank
from tests.gangs import light_job
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
job = light_job(Path(sys.argv[1]), ranks=2)
print(*[rank.handle.pid for rank in job._gang.ranks], flush=True)
signal.pause()
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_the_end_of_the_driver_leaves_no_rank(tmp_path: Path, sign: signal.Signals) -> None:
    """Neither a rank that waits for work nor a stopped one, which cannot see that its driver hung up."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as driver:
        assert driver.stdout is not None
        ranks = [psutil.Process(int(pid)) for pid in driver.stdout.readline().split()]
        assert len(ranks) == 2
        _wait_for_lifeline(ranks)
        ranks[1].suspend()
        driver.send_signal(sign)
    _, alive = psutil.wait_procs(ranks, timeout=10)
    assert not [rank for rank in alive if rank.status() != psutil.STATUS_ZOMBIE]


def _wait_for_lifeline(ranks: list[psutil.Process]) -> None:
    """Until each rank has a thread that listens to its driver, so past the start of its interpreter."""
    for rank in ranks:
        while rank.num_threads() < 3:
            assert rank.is_running()
            os.sched_yield()


def _plan(folder: Path) -> LaunchPlan:
    return plan_launch(HorovodSpec(ranks=1), HorovodPlacement(), folder, preload=False)


def _with_command(plan: LaunchPlan, *arguments: str) -> LaunchPlan:
    rank = plan.ranks[0].model_copy(update={"command": (sys.executable, *arguments)})
    return plan.model_copy(update={"ranks": (rank,)})


def _ranks_under(folder: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE and str(folder) in " ".join(_log_of(process))
    ]


def _log_of(process: psutil.Process) -> list[str]:
    return [file.path for file in process.open_files()]
