"""The crash drill on real Spark and two ranks."""

from __future__ import annotations

import pytest

from ml_platform import crash_drill
from tests.scenarios.conftest import QUICK
from tests.scenarios.drilled import drilled

pytestmark = [pytest.mark.slow, pytest.mark.spark, pytest.mark.horovod, pytest.mark.timeout(900)]

TASKS = ("make_table", "add_up", "compare")


def test_a_run_recovers_from_a_crash_at_every_point(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    drill = crash_drill(drilled, rows=100)
    steps = {point.split(": ")[1] for point in drill.points}
    assert steps >= {"starts", "ran", "ended", "before a result appears", "before numbers appears"}
    assert steps >= {"before run.json appears", "its record is folded"}
    borders = {f"{name}: {step}" for name in TASKS for step in ("starts", "ran", "ended")}
    assert borders <= set(drill.points)
    tasks = {point.split(": ")[0] for point in drill.points}
    assert tasks == {"run", *TASKS}
