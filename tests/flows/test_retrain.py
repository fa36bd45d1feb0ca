"""The main job as it is declared: what its plan says before anything has run."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from flows.retrain import retrain
from ml_platform.specs.references import Family

pytestmark = pytest.mark.slow


def test_every_task_can_be_cached_and_no_key_is_coarse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value without an identity, in whatever a task reaches, would train it anew every night."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    plan = retrain.plan(families=get_args(Family))
    assert {decision.name: decision.uncacheable for decision in plan.nodes if decision.uncacheable} == {}
    assert plan.notes == ()
