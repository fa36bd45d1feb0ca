"""Horovod's timeline, on request."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_platform.resources.horovod import open_job
from ml_platform.resources.horovod.timeline import timeline_of
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import HorovodSpec
from tests.worker import rank_functions

pytestmark = pytest.mark.horovod


def test_rank_0_writes_what_tensors_waited_for(tmp_path: Path) -> None:
    """Whole when the job has ended, beside the logs."""
    spec = HorovodSpec(ranks=2, backend="processes", timeline=True)
    with open_job(spec, HorovodPlacement(), log_folder=tmp_path) as job:
        assert timeline_of(job.plan) is None
        job.run(rank_functions.listening_addresses)
        written = timeline_of(job.plan)
        assert written == tmp_path / "timeline.json"
        assert "ALLGATHER" in written.read_text()
