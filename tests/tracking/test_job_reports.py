"""What a training by ranks leaves in MLflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ml_platform.resources.horovod import open_job
from ml_platform.resources.horovod.timeline import timeline_of
from ml_platform.specs.contracts import Column, Contract
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.references import Dataset
from ml_platform.specs.resources import HorovodSpec
from ml_platform.specs.tracking import TrackingRun
from ml_platform.specs.training import KerasSpec
from ml_platform.tracking.server import client
from ml_platform.training.job_reports import log_job, versions
from ml_platform.worker.fitted import Fitted
from tests.gangs import light_job
from tests.worker import rank_functions

SPEC = KerasSpec(batch_rows=60, seed=3)
TRAIN = Dataset(
    uri="file:///data/packed/0a1b",
    contract=Contract(columns=(Column(name="features", type="packed", width=4),)),
    rows=1000,
    bytes=4096,
    fingerprint="cd" * 32,
)


def fitted(ranks: int, rate: float) -> Fitted:
    return Fitted(
        model=b"",
        history={},
        proof={},
        epochs=3,
        best_epoch=2,
        steps=16,
        rows_dropped_per_epoch=40,
        rows_per_second=[rate / 10, rate, rate],
        seconds=8.0,
        phases=[{"compute": 5.0 + rank, "allreduce": 1.0} for rank in range(ranks)],
    )


@pytest.mark.horovod
def test_speed_coverage_seeds_versions_and_the_plan_are_there(run: TrackingRun, tmp_path: Path) -> None:
    """Two ranks are compared with what one did before: same network, same rows, same machine."""
    alone = HorovodSpec(ranks=1, backend="in_process")
    with (
        run.nested("alone") as first,
        open_job(alone, HorovodPlacement(), log_folder=tmp_path / "alone") as job,
    ):
        speed = log_job(first, job, fitted(1, 100.0), TRAIN, SPEC, wall_s=9.5)
        assert (speed.efficiency, speed.seconds[0]["launch"]) == (None, 1.5)
    pair = light_job(tmp_path / "pair", ranks=2)
    try:
        pair.waited_s = 0.25
        with run.nested("together") as second:
            speed = log_job(second, pair, fitted(2, 180.0), TRAIN, SPEC, wall_s=9.0)
        with run.nested("another") as third:
            other = log_job(third, pair, fitted(2, 180.0), TRAIN, KerasSpec(epochs=1), wall_s=9.0)
    finally:
        pair.close()
    assert speed.efficiency == pytest.approx(0.9)
    assert other.efficiency is None

    found = client().get_run(second.run_id)
    metrics = found.data.metrics
    assert metrics["speed.scaling_efficiency"] == pytest.approx(0.9)
    assert (metrics["speed.rows_per_second"], metrics["speed.rows_per_second_and_rank"]) == (180, 90)
    assert (metrics["seconds.launch"], metrics["seconds.compute"], metrics["seconds.allreduce"]) == (1, 6, 1)
    assert metrics["seconds.waiting_for_ranks"] == 0.25
    assert (metrics["coverage.rows_seen_per_epoch"], metrics["coverage.rows_dropped_per_epoch"]) == (960, 40)
    assert found.data.tags["seed"] == "3"
    assert found.data.tags["version.keras"] == versions()["version.keras"]
    files = {file.path for file in client().list_artifacts(second.run_id)}
    assert files == {"launch_plan.txt", "speed.png"}
    plan = Path(client().download_artifacts(second.run_id, "launch_plan.txt", str(tmp_path))).read_text()
    assert plan.startswith("2 rank(s), backend processes")
    assert "HOROVOD_SIZE=2" in plan


@pytest.mark.horovod
def test_the_timeline_of_two_ranks_is_there_on_request(run: TrackingRun, tmp_path: Path) -> None:
    """What each tensor waited for, as JSON that is whole: rank 0 wrote it beside its log."""
    spec = HorovodSpec(ranks=2, backend="processes", timeline=True)
    with open_job(spec, HorovodPlacement(), log_folder=tmp_path / "logs") as job:
        assert timeline_of(job.plan) is None
        job.run(rank_functions.listening_addresses)
        assert timeline_of(job.plan) == tmp_path / "logs" / "timeline.json"
        log_job(run, job, fitted(2, 100.0), TRAIN, SPEC, wall_s=9.0)
    artifact = client().download_artifacts(run.run_id, "timeline.json", str(tmp_path))
    events = json.loads(Path(artifact).read_text())
    assert {"NEGOTIATE_ALLGATHER", "ALLGATHER"} <= {event.get("name") for event in events}
