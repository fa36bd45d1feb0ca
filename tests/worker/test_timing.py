"""Where the time of a fit goes: measured on every rank, in its own loop."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ml_platform
from ml_platform.worker.timing import Stopwatch
from tests.gangs import warm_pair
from tests.worker import rank_functions
from tests.worker.tables import blobs, packed_dataset


def test_a_stopwatch_counts_what_making_items_takes_and_nothing_else() -> None:
    watch = Stopwatch()
    items = watch.over(range(3))
    assert watch.seconds == 0
    assert list(items) == [0, 1, 2]
    before = watch.seconds
    assert before > 0
    with pytest.raises(ValueError, match="no"), watch.running():
        raise ValueError("no")
    assert watch.seconds > before


def test_waits_are_measured_by_a_clock_that_never_goes_back() -> None:
    """A clock that is set anew must neither end ranks nor let a dead one wait for good."""
    root = Path(ml_platform.__file__).parent
    sources = [*(root / "worker").rglob("*.py"), *(root / "resources").rglob("*.py")]
    assert len(sources) > 60
    assert not [path.name for path in sources if re.search(r"\btime\.time\(|datetime", path.read_text())]


@pytest.mark.horovod
def test_every_rank_says_what_it_did(tmp_path: Path) -> None:
    """Timing the allreduce inside of the compiled step leaves the step what it was: see the other tests."""
    train = packed_dataset(tmp_path / "train", *blobs(1000), files=2, group_rows=150)
    validation = packed_dataset(tmp_path / "validation", *blobs(301, seed=5))
    history = warm_pair().run(rank_functions.fit, train, validation).rank0[0]
    assert len(history.phases) == 2
    for phases in history.phases:
        assert set(phases) == {"compute", "allreduce", "validation", "feed"}
        assert all(seconds > 0 for seconds in phases.values())
        assert phases["compute"] + phases["allreduce"] + phases["validation"] <= history.seconds + 1
