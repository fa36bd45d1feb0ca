"""Code written for `hvd.DistributedOptimizer` really trains together, with Keras 3, on two real ranks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_platform.errors import DesyncError, RankError, RankLostError, SpecError
from ml_platform.resources import progress
from ml_platform.resources.horovod import open_job
from ml_platform.resources.horovod_runner import run_main
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import HorovodSpec
from ml_platform.worker import collective
from ml_platform.worker.main_function import MainFunction
from ml_platform.worker.rank import Rank
from tests.gangs import warm_pair
from tests.worker import horovod_mains

pytestmark = pytest.mark.horovod


def on_two_ranks(main: Any, **kwargs: Any) -> Any:
    return run_main(warm_pair(), main, kwargs, log_folder=Path("/nowhere"))


def test_two_ranks_compute_what_one_does_on_all_rows() -> None:
    """Gradients are reduced: stock Horovod reduces none with Keras 3, and ranks would drift apart."""
    result = on_two_ranks(horovod_mains.tutorial, rate=0.05, seed=5)
    alone = warm_pair().run(plain_fit, 16).rank0
    assert (result["rank"], result["size"]) == (0, 2)
    assert len(set(result["everyone"])) == 1
    for ours, wanted in zip(result["weights"], alone, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-6)


def test_ranks_that_start_apart_end_with_equal_bytes_and_one_loss() -> None:
    """No seed: rank 0's weights are broadcast; dropout differs per rank; XLA is switched off."""
    result = on_two_ranks(horovod_mains.tutorial, rate=0.05, jit=True)
    assert len(set(result["everyone"])) == 1
    assert len(set(result["loss"])) == 1


def test_an_overflow_on_one_rank_alone_makes_all_skip_the_step() -> None:
    assert len(set(on_two_ranks(horovod_mains.half_precision))) == 1


def test_warm_up_and_schedule_move_the_rate() -> None:
    rates = on_two_ranks(horovod_mains.warm_up, rate=0.08)
    assert rates == pytest.approx([0.06, 0.08, 0.08, 0.008])


@pytest.mark.parametrize("main", [horovod_mains.own_loop, horovod_mains.continued])
def test_own_loops_and_loaded_models_are_distributed(main: Any, tmp_path: Path) -> None:
    given = {"steps": 3} if main is horovod_mains.own_loop else {"folder": str(tmp_path)}
    assert len(set(on_two_ranks(main, **given))) == 1


def test_after_main_horovod_is_what_it_was() -> None:
    on_two_ranks(horovod_mains.own_loop, steps=1)
    assert warm_pair().run(untouched).rank0


def test_what_would_not_train_together_is_refused() -> None:
    """In one job: a refusal inside a function is caught there, and the ranks live on."""
    refused = on_two_ranks(refusals)
    assert "the optimizer of the model is not distributed" in refused["plain optimizer"]
    assert "the optimizer of the model is not distributed" in refused["policy set later"]
    assert "backward_passes_per_step" in refused["backward_passes_per_step"]
    assert "gradient_accumulation_steps" in refused["backward_passes_per_step"]
    assert "leave compression out" in refused["compression"]


def test_a_forgotten_broadcast_fails_the_proof() -> None:
    """Ranks that started from other weights stay apart, however well their gradients are averaged."""
    assert all(
        "ranks hold different models" in said for said in warm_pair().run(proof_of_a_forgotten_broadcast)
    )


def test_a_rank_that_waits_long_for_another_says_so(tmp_path: Path) -> None:
    """As after a `main` in which another rank takes more steps: Horovod over Gloo would never say it."""
    told = tmp_path / "told"
    os.mkfifo(told)

    def hear(report: progress.Progress) -> None:
        assert "rank 1 has waited 0.1 s for another rank" in report.message
        assert "do all ranks take the same number of steps?" in report.message
        told.write_text("go on")

    with progress.listening(hear):
        assert list(warm_pair().run(late_on_rank_0, str(told))) == [[0, 1], [0, 1]]


@pytest.mark.parametrize("main", [horovod_mains.unequal_loop, horovod_mains.unequal_fit])
def test_a_rank_with_fewer_steps_than_another_says_that_it_waits(main: Any, tmp_path: Path) -> None:
    """Both wait for good, each in another operation: cancelled as soon as that is told."""
    heard: list[str] = []
    with open_job(HorovodSpec(ranks=2), HorovodPlacement(), log_folder=tmp_path) as job:

        def hear(report: progress.Progress) -> None:
            heard.append(report.message)
            job.cancel()

        with progress.listening(hear), pytest.raises(RankError, match="the job was cancelled"):
            job.run(impatient_on_rank_1, main)
    assert "rank 1 has waited 0.1 s for another rank" in heard[0]


def impatient_on_rank_1(rank: Rank, main: Any) -> None:
    """Its ranks are ended: nothing is put back."""
    if rank.rank == 1:
        collective.PATIENCE_S = 0.1
    MainFunction(main)(rank, {})


def test_a_rank_that_the_others_have_left_fails_with_the_likely_cause(tmp_path: Path) -> None:
    """Horovod speaks of an exception on one of the ranks; there was none."""
    spec = HorovodSpec(ranks=2)
    with (
        open_job(spec, HorovodPlacement(), log_folder=tmp_path) as job,
        pytest.raises(RankLostError, match="Horovod has been shut down") as caught,
    ):
        job.run(own_unequal_loop)
    hint = "rank 1 had returned by then: let all ranks take the same number of steps; see "
    assert str(caught.value.hint).startswith(hint)


def own_unequal_loop(rank: Rank) -> None:
    horovod_mains.unequal_loop()


def late_on_rank_0(rank: Rank, told: str) -> list[int]:
    collective.PATIENCE_S, before = (60.0 if rank.rank == 0 else 0.1), collective.PATIENCE_S
    try:
        if rank.rank == 0:
            Path(told).read_text()
        return collective.gather_json(rank.collective, rank.rank)
    finally:
        collective.PATIENCE_S = before


def plain_fit(rank: Rank, batch_rows: int) -> Any:
    return horovod_mains.plain_fit(batch_rows) if rank.rank == 0 else None


def proof_of_a_forgotten_broadcast(rank: Rank) -> str:
    """The refusal is caught on the rank, so that the ranks live on."""
    try:
        MainFunction(horovod_mains.forgetful)(rank, {"how": "no broadcast"})
    except DesyncError as error:
        return error.what
    return "no word of it"


def untouched(rank: Rank) -> bool:
    import horovod._keras as stock
    import horovod.tensorflow as hvd
    from horovod._keras import callbacks

    names = vars(callbacks.BroadcastGlobalVariablesCallbackImpl)
    modules = {stock.create_distributed_optimizer.__module__, hvd.broadcast_variables.__module__}
    return "on_train_begin" not in names and all(name.startswith("horovod.") for name in modules)


def refusals() -> dict[str, str]:
    said = {}
    for how in ("plain optimizer", "policy set later", "backward_passes_per_step", "compression"):
        try:
            horovod_mains.forgetful(how)
        except SpecError as error:
            said[how] = str(error)
    return said
