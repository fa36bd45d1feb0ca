"""Leases: shared, counted, closed in reverse order, also when one of them fails to close."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest

from ml_platform.errors import ResourceStartError
from ml_platform.resources.budget import Need
from ml_platform.resources.leases import KINDS, Leases, Scope, current_leases, using
from ml_platform.resources.spark_lease import local_cores
from ml_platform.specs.placements import Placement
from ml_platform.specs.resources import ResourceSpec


class BoxSpec(ResourceSpec):
    name: str = "a"
    breaks: bool = False


class BoxLease:
    to_the_end: ClassVar[bool] = False
    happened: ClassVar[list[str]] = []

    def __init__(self, spec: BoxSpec, scope: Scope) -> None:
        self.spec = spec
        self.happened.append(f"opened {spec.name}")

    @classmethod
    def resolve(cls, spec: BoxSpec, placement: Placement) -> BoxSpec:
        return spec

    @classmethod
    def key(cls, spec: BoxSpec) -> str:
        return spec.name

    @classmethod
    def need(cls, spec: BoxSpec, placement: Placement) -> Need:
        return Need(name=spec.name)

    @classmethod
    def preflight(cls, spec: BoxSpec, placement: Placement) -> None: ...

    def start(self) -> None: ...

    @contextmanager
    def use(self, spec: BoxSpec, *, task: str) -> Iterator[str]:
        yield f"{spec.name} for {task}"

    def cancel(self) -> None:
        self.happened.append(f"cancelled {self.spec.name}")

    def close(self, error: BaseException | None = None) -> None:
        self.happened.append(f"closed {self.spec.name}")
        if self.spec.breaks:
            raise OSError(f"{self.spec.name} did not close")


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> Leases:
    monkeypatch.setitem(KINDS, "BoxSpec", f"{__name__}:BoxLease")
    BoxLease.happened.clear()
    return Leases(Scope(name="test", run="test", placement=Placement()))


def test_tasks_share_what_has_one_key(leases: Leases) -> None:
    with leases.open({"box": BoxSpec()}, task="first") as opened:
        assert opened == {"box": "a for first"}
    with leases.open({"box": BoxSpec()}, task="second"):
        pass
    assert BoxLease.happened == ["opened a"]


def test_everything_closes_in_reverse_even_if_one_fails_to(leases: Leases) -> None:
    """The error of the one that failed arrives, after the others were closed."""
    boxes = {"x": BoxSpec(name="a"), "y": BoxSpec(name="b", breaks=True), "z": BoxSpec(name="c")}
    with leases.open(boxes, task="t"):
        pass
    with pytest.raises(OSError, match="b did not close"):
        leases.close()
    assert BoxLease.happened[-3:] == ["closed c", "closed b", "closed a"]
    leases.close()


def test_what_no_coming_task_uses_is_closed(leases: Leases) -> None:
    with leases.open({"x": BoxSpec(name="a"), "y": BoxSpec(name="b")}, task="t"):
        pass
    leases.close_unused([BoxSpec(name="b")])
    assert BoxLease.happened[-1] == "closed a"


def test_after_a_cancel_nothing_is_opened(leases: Leases) -> None:
    leases.start([BoxSpec()])
    leases.cancel()
    assert BoxLease.happened == ["opened a", "cancelled a"]
    with (
        pytest.raises(ResourceStartError, match="was cancelled"),
        leases.open({"b": BoxSpec(name="b")}, task="t"),
    ):
        pass


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
