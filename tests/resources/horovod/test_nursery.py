"""Ranks that are forked from a process which has imported TensorFlow: as good as ranks of their own start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ml_platform.errors import RankError, ResourceStartError
from ml_platform.resources.horovod import nursery, open_job, plan_launch
from ml_platform.resources.horovod.nursery import prepare_nursery
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import HorovodSpec
from tests.gangs import nurseries_of_this_process, ranks_of_this_process
from tests.worker import rank_functions

pytestmark = pytest.mark.horovod


def test_ranks_of_two_jobs_share_an_import_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its environment, its log, its process group, its random numbers, its end."""
    draws = set()
    coming = plan_launch(HorovodSpec(ranks=2), HorovodPlacement(), tmp_path / "coming")
    for _ in range(2):  # the second time it is there
        prepare_nursery(coming.ranks[0])
    prepared = {nursery.pid for nursery in nurseries_of_this_process()}
    for name in ("first", "second"):
        monkeypatch.setenv("ML_PLATFORM_SAID", name)
        # MLflow sets or unsets it when it is imported, which a run does between its plan and its training.
        monkeypatch.setenv("_MLFLOW_TELEMETRY_SESSION_ID", name)
        monkeypatch.setenv("TMPDIR", str(tmp_path / name))
        with open_job(HorovodSpec(ranks=2), HorovodPlacement(), log_folder=tmp_path / name) as job:
            told = job.run(rank_functions.describe_process)
            parents = {rank["parent"] for rank in told}
            assert len(parents) == 1
            assert parents <= prepared & {nursery.pid for nursery in nurseries_of_this_process()}
            assert [rank["HOROVOD_RANK"] for rank in told] == ["0", "1"]
            assert {rank["ML_PLATFORM_SAID"] for rank in told} == {name}
            assert {rank["temporary"] for rank in told} == {str(tmp_path / name)}
            assert all(rank["group"] == rank["pid"] for rank in told)
            draws |= {rank["draw"] for rank in told} | {rank["numpy"] for rank in told}
            with pytest.raises(RankError, match="died in") as caught:
                job.run(rank_functions.leave, 7)
            assert caught.value.got == "it exited with 7"
            assert job.run(rank_functions.identity).rank0 == (0, 2, ())
        assert not {rank.pid for rank in ranks_of_this_process()} & {rank["pid"] for rank in told}
        assert f"I am rank 1 of {name}" in (tmp_path / name / "rank-1.log").read_text()
        assert "rank 1" not in (tmp_path / name / "rank-0.log").read_text()
    assert len(draws) == 8


def test_what_an_import_may_read_asks_for_another_nursery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one cannot import Keras here, and its rank says so. One that is killed is replaced."""
    (tmp_path / "keras.py").write_text("raise ImportError('no such luck')")
    monkeypatch.syspath_prepend(tmp_path)
    before = {nursery.pid for nursery in nurseries_of_this_process()}
    with open_job(HorovodSpec(ranks=1), HorovodPlacement(), log_folder=tmp_path) as job:
        with pytest.raises(ResourceStartError) as caught:
            job.run(rank_functions.identity)
        (new,) = {nursery.pid for nursery in nurseries_of_this_process()} - before
    assert caught.value.got == "missing ranks 0; rank 0 ended with exit code 1"
    assert "no such luck" in (caught.value.evidence or "")
    psutil.Process(new).kill()
    with open_job(HorovodSpec(ranks=1), HorovodPlacement(), log_folder=tmp_path) as job:
        with pytest.raises(ResourceStartError, match="1 ranks did not start"):
            job.run(rank_functions.identity)
        assert new not in {nursery.pid for nursery in nurseries_of_this_process()}


def test_a_nursery_ends_with_what_its_imports_have_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that is refused while its ranks are being prepared leaves nothing."""
    os.mkfifo(tmp_path / "number")
    helper = (
        f"import os, signal; open({str(tmp_path / 'number')!r}, 'w').write(str(os.getpid())); signal.pause()"
    )
    (tmp_path / "keras.py").write_text(
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {helper!r}])"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = nurseries_of_this_process()
    prepare_nursery(plan_launch(HorovodSpec(ranks=1), HorovodPlacement(), tmp_path).ranks[0])
    (new,) = [found for found in nurseries_of_this_process() if found not in before]
    started = psutil.Process(int((tmp_path / "number").read_text()))
    assert started.ppid() == new.pid
    assert nursery._nursery is not None
    nursery._nursery.end()
    assert not new.is_running()
    assert psutil.wait_procs([started], timeout=10) == ([started], [])


def test_a_nursery_that_hangs_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped in the middle of its imports: the next ranks come from another one."""
    monkeypatch.setenv("A_VARIABLE_OF", "this test")
    monkeypatch.setattr(nursery, "_LATE_S", 0.0)
    before = {process.pid for process in nurseries_of_this_process()}
    spec = HorovodSpec(ranks=1, start_timeout_s=0.2)
    prepare_nursery(plan_launch(spec, HorovodPlacement(), tmp_path).ranks[0])
    (stopped,) = (process for process in nurseries_of_this_process() if process.pid not in before)
    stopped.suspend()
    with (
        open_job(spec, HorovodPlacement(), log_folder=tmp_path) as job,
        pytest.raises(ResourceStartError, match="1 ranks did not start"),
    ):
        job.run(rank_functions.identity)
    with open_job(spec, HorovodPlacement(), log_folder=tmp_path):
        (other,) = (
            process for process in nurseries_of_this_process() if process.pid not in before | {stopped.pid}
        )
    for process in (stopped, other):
        process.kill()


DRIVER = """
import signal, sys, threading
from pathlib import Path
from ml_platform.resources.horovod import open_job
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import HorovodSpec
from tests.worker import rank_functions
with open_job(HorovodSpec(ranks=2), HorovodPlacement(), log_folder=Path(sys.argv[1]) / "closed"):
    pass
with open_job(HorovodSpec(ranks=2), HorovodPlacement(), log_folder=Path(sys.argv[1])) as job:
    ranks = [rank["pid"] for rank in job.run(rank_functions.describe_process)]
    print(*ranks, flush=True)
    signal.pause()
"""


def test_kill_9_of_the_driver_leaves_neither_rank_nor_nursery(tmp_path: Path) -> None:
    """Also a stopped one. Ranks that were closed while the nursery still imported end when they are born."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as driver:
        assert driver.stdout is not None
        ranks = {int(pid) for pid in driver.stdout.readline().split()}
        nursery = psutil.Process(min(ranks)).parent()
        assert nursery is not None
        unwanted = [process for process in nursery.children() if process.pid not in ranks]
        assert not psutil.wait_procs(unwanted, timeout=30)[1]
        family = [nursery, *(psutil.Process(pid) for pid in ranks)]
        for process in family[:2]:
            process.suspend()
        driver.kill()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
