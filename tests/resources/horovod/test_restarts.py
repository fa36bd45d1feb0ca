"""A gang that lost a rank starts again, and the fit goes on as if nothing had been."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_platform.errors import DataError, PlatformError, RankError, RankLostError, StoreError
from ml_platform.resources import progress
from ml_platform.resources.horovod import open_job
from ml_platform.resources.horovod.in_process import InProcessJob
from ml_platform.resources.horovod.job import HorovodJob
from ml_platform.resources.horovod.restarts import RestartingJob
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import HorovodSpec
from tests.gangs import light_job, log_of_rank_0, warm_pair
from tests.worker import rank_functions
from tests.worker.tables import blobs, packed_dataset

pytestmark = pytest.mark.horovod


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "store"
    monkeypatch.setenv("ML_PLATFORM_STORE", str(folder))
    return folder


def outcome(folder: Path, how: str, *, times: int, max_restarts: int) -> int | PlatformError:
    folder.mkdir()
    job: HorovodJob = RestartingJob(light_job(folder, heartbeat_timeout_s=2), max_restarts)
    try:
        return job.run(rank_functions.falter, folder, how, times).rank0
    except PlatformError as error:
        return error
    finally:
        job.close()


@pytest.mark.parametrize("how", ["infrastructure", "exits", "killed", "stopped"])
def test_lost_rank_is_started_again(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """What was lost, and its log, is told; the caller gets the result."""
    with caplog.at_level(logging.WARNING):
        assert outcome(tmp_path / "a", how, times=1, max_restarts=1) == 2
    told = caplog.text
    assert "restart 1 of 1 of tests.worker.rank_functions.falter" in told
    assert "rank 0 of 1 on" in told
    assert f"log: {tmp_path / 'a' / 'rank-0.log'}" in told or "the store does not answer" in told


def test_restarts_are_limited_and_the_last_error_is_told(tmp_path: Path) -> None:
    error = outcome(tmp_path / "a", "killed", times=3, max_restarts=2)
    assert isinstance(error, RankLostError)
    assert error.got == "it was killed by signal 9"
    assert len(list((tmp_path / "a").glob("call-*"))) == 3
    error = outcome(tmp_path / "b", "infrastructure", times=3, max_restarts=1)
    assert isinstance(error, StoreError)


def test_a_cancel_between_two_gangs_ends_the_job(tmp_path: Path) -> None:
    """The first one is gone, the second has not begun: it must not."""
    light = light_job(tmp_path)
    job = RestartingJob(light, 3)
    with (
        progress.listening(lambda said: job.cancel()),
        pytest.raises(RankError, match="the job was cancelled"),
    ):
        job.run(rank_functions.falter, tmp_path, "killed", 3)
    job.close()
    assert len(list(tmp_path.glob("call-*"))) == 1
    assert light._gang is None


@pytest.mark.parametrize(("how", "kind"), [("user", RankError), ("data", DataError)])
def test_errors_of_the_function_are_not_tried_again(
    tmp_path: Path, how: str, kind: type[PlatformError]
) -> None:
    error = outcome(tmp_path / "a", how, times=1, max_restarts=3)
    assert type(error) is kind
    assert len(list((tmp_path / "a").glob("call-*"))) == 1


@pytest.mark.long
def test_fit_goes_on_from_its_checkpoint_with_the_same_bytes(tmp_path: Path, store: Path) -> None:
    """Rank 1 is killed in epoch 6 of 7: at most one interval is done again, and no bit differs. Where the
    newest checkpoint was cut short, the one before it is used, and the log says so.
    """
    train = packed_dataset(tmp_path / "train", *blobs(500), group_rows=90)
    validation = packed_dataset(tmp_path / "validation", *blobs(101, seed=5))
    pair = warm_pair()
    again = RestartingJob(pair, 1)  # the pair that is started again stays warm
    runs = {"undisturbed": (None, False), "whole": ((5, 3), False), "cut": ((5, 3), True)}
    undisturbed, *lost = (
        again.run(rank_functions.fit_once_lost, train, validation, _folder(tmp_path / name), *how)
        for name, how in runs.items()
    )
    assert undisturbed.rank0[0] == [0, 1, 2, 3, 4, 5, 6]
    assert [results.rank0[0] for results in lost] == [[4, 5, 6], [2, 3, 4, 5, 6]]
    for results in lost:
        for (_, *facts, weights), (_, *others, other_weights) in zip(results, undisturbed, strict=True):
            assert facts == others
            assert _bytes(weights) == _bytes(other_weights)
    log = log_of_rank_0(pair)
    assert "goes on after epoch 4, from a checkpoint" in log
    told = log.index("epoch-000004 is cut short; the one before it is used")
    assert log.index("goes on after epoch 2, from a checkpoint") > told
    assert not list(store.rglob("*")), "checkpoints are gone"


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _bytes(arrays: list[Any]) -> list[bytes]:
    return [np.asarray(array).tobytes() for array in arrays]


def test_recipe_says_how_often(tmp_path: Path) -> None:
    """Without restarts the job is the backend's own."""
    for count, kind in ((1, RestartingJob), (0, InProcessJob)):
        spec = HorovodSpec(backend="in_process", max_restarts=count)
        with open_job(spec, HorovodPlacement(), log_folder=tmp_path) as job:
            assert type(job) is kind
            assert (job.ranks, job.backend) == (1, "in_process")
            assert job.run(rank_functions.identity, 1).rank0 == (0, 1, (1,))
