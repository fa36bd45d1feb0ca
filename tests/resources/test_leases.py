"""Leases: shared, counted, closed in reverse order, also when one of them fails to close."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_platform.errors import RankError, ResourceStartError
from ml_platform.resources.gang_lease import GangLease
from ml_platform.resources.leases import KINDS, Leases, Scope, current_leases, using
from ml_platform.resources.slots import local_cores
from ml_platform.specs.placements import Placement
from ml_platform.specs.resources import HorovodSpec, ResourceSpec
from ml_platform.worker.rank import Rank
from tests.counters import CounterLease, CounterSpec


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> Leases:
    monkeypatch.setitem(KINDS, "CounterSpec", "tests.counters:CounterLease")
    CounterLease.happened.clear()
    return Leases(Scope(name="test", run="test", placement=Placement()))


def test_tasks_share_what_has_one_key(leases: Leases) -> None:
    with leases.open({"box": CounterSpec()}, task="first") as opened:
        assert opened == {"box": CounterLease.happened}
    with leases.open({"box": CounterSpec()}, task="second"):
        pass
    assert CounterLease.happened == ["opened a", "first uses a", "second uses a"]


def test_everything_closes_in_reverse_even_if_one_fails_to(leases: Leases) -> None:
    """The error of the one that failed arrives, after the others were closed."""
    boxes = {"x": CounterSpec(name="a"), "y": CounterSpec(name="b", breaks=True), "z": CounterSpec(name="c")}
    with leases.open(boxes, task="t"):
        pass
    with pytest.raises(OSError, match="b did not close"):
        leases.close()
    assert CounterLease.happened[-3:] == ["closed c", "closed b", "closed a"]
    leases.close()


def test_what_no_coming_task_uses_is_closed(leases: Leases) -> None:
    with leases.open({"x": CounterSpec(name="a"), "y": CounterSpec(name="b")}, task="t"):
        pass
    leases.close_unused([CounterSpec(name="b")])
    assert CounterLease.happened[-1] == "closed a"


def test_after_a_cancel_nothing_is_opened(leases: Leases) -> None:
    leases.start([CounterSpec()])
    leases.cancel()
    assert CounterLease.happened == ["opened a", "cancelled a"]
    with (
        pytest.raises(ResourceStartError, match="run test was stopped"),
        leases.open({"b": CounterSpec(name="b")}, task="t"),
    ):
        pass


def test_everything_is_cancelled_even_if_one_fails_to(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [CounterSpec(name=name) for name in ("a", "b", "c")]
    leases.start(boxes)
    cancel = CounterLease.cancel

    def fail(self: CounterLease, task: str | None = None) -> None:
        cancel(self, task)
        if self.name == "b":
            raise OSError("b cannot be cancelled")

    monkeypatch.setattr(CounterLease, "cancel", fail)
    with pytest.raises(OSError, match="b cannot be cancelled"):
        leases.cancel()
    assert CounterLease.happened[3:] == ["cancelled a", "cancelled b", "cancelled c"]


def test_after_one_task_was_cancelled_the_next_gets_other_ranks(tmp_path: Path) -> None:
    """A task that took too long may be tried again, and others share its gang."""
    scope = Scope(name="test", run="run", placement=Placement())
    spec = HorovodSpec(ranks=1, backend="in_process")
    lease = GangLease(spec, scope)
    with lease.use(spec, task="slow") as job:
        lease.cancel("another")
        assert job.run(rank_number).rank0 == 0
        lease.cancel("slow")
        with pytest.raises(RankError, match="cancelled"):
            job.run(rank_number)
    with lease.use(spec, task="slow") as job:
        assert job.run(rank_number).rank0 == 0
        lease.cancel()
    with lease.use(spec, task="slow") as job, pytest.raises(RankError, match="cancelled"):
        job.run(rank_number)
    lease.close()


def rank_number(rank: Rank) -> int:
    return rank.rank


def test_a_recipe_of_no_known_kind_is_refused(leases: Leases) -> None:
    class Unknown(ResourceSpec):
        pass

    with pytest.raises(ResourceStartError, match="no lease for recipe Unknown"):
        leases.resolve({"x": Unknown()})


def test_tasks_find_the_leases_of_their_run(leases: Leases) -> None:
    with using(leases):
        assert current_leases() is leases
    assert current_leases() is not leases


@pytest.mark.parametrize(
    ("master", "cores"),
    [
        ("local", 1),
        ("local[3]", 3),
        ("local[*]", 8),
        ("local[2,4]", 2),
        ("local[*,2]", 8),
        ("spark://h:7077", 0),
    ],
)
def test_a_local_master_uses_cores_of_this_machine(master: str, cores: int) -> None:
    assert local_cores(master, 8) == cores
