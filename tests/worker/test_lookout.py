"""How often ranks compare themselves: as asked, or rarer, so that it takes 1 % of the time at most."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ml_platform.worker.collective import Alone, Collective
from ml_platform.worker.fit_spec import FitSpec
from ml_platform.worker.lookout import Lookout

STEP_S = 0.01


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still unless it is told to go on."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


class Slow(Alone):
    """Waiting for another rank takes so long."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self._clock, self._seconds = clock, seconds

    def gather(self, value: NDArray[Any]) -> list[NDArray[Any]]:
        self._clock[0] += self._seconds
        return [value]


def looks(clock: list[float], collective: Collective, steps: int) -> Iterator[int]:
    """Steps after which a fit that checks every 10 looks."""
    spec = FitSpec(batch_rows=1, epochs=1, check_every_steps=10)
    lookout = Lookout(None, collective, spec)
    for step in range(1, steps + 1):
        clock[0] += STEP_S
        if lookout.is_due(1):
            lookout.look(None, epoch=0, wants_stop=False)
            yield step


def test_looks_that_cost_little_are_as_often_as_asked(clock: list[float]) -> None:
    assert list(looks(clock, Slow(clock, STEP_S / 100), 50)) == [10, 20, 30, 40, 50]


def test_looks_that_cost_much_get_rarer_until_they_take_a_hundredth(clock: list[float]) -> None:
    """Half a step each: every 50 steps. What the first one costs is known after it."""
    found = list(looks(clock, Slow(clock, STEP_S / 2), 400))
    assert found[:2] == [10, 20]
    assert all(50 <= after - before <= 51 for before, after in itertools.pairwise(found[1:]))


def test_ranks_of_different_speed_look_at_the_same_step(clock: list[float]) -> None:
    """The one that has the longest way to a hundredth decides for all."""

    class Two(Slow):
        size = 2

        def gather(self, value: NDArray[Any]) -> list[NDArray[Any]]:
            *facts, step_s = json.loads(value.tobytes())
            other = json.dumps([*facts, step_s / 2]).encode()
            return [*super().gather(value), np.frombuffer(other, np.uint8)]

    class Model:
        weights = ()
        optimizer = type("Optimizer", (), {"variables": ()})

    lookout = Lookout(Model, Two(clock, STEP_S / 2), FitSpec(batch_rows=1, epochs=1, check_every_steps=1))
    for _ in range(2):
        clock[0] += STEP_S
        lookout.is_due(1)
        lookout.look(None, epoch=0, wants_stop=False)
    assert not lookout.is_due(99)
    assert lookout.is_due(2)
