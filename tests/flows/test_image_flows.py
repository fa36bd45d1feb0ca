"""The flows of images as they are declared: what their plans say before anything has run."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.image_classification import image_classification
from flows.image_scoring import image_scoring
from ml_platform.cli.dag_command import main

pytestmark = pytest.mark.slow


def test_a_misspelt_backbone_ends_the_command_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    assert main(image_classification, ["--backbone.name", "resnet50"]) == 2
    err = " ".join(capfd.readouterr().err.split())
    assert "no backbone 'resnet50'" in err
    assert "did you mean 'ResNet50'?" in err
    assert "server" not in err


def test_every_task_can_be_cached_and_no_key_is_coarse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    plan = image_classification.plan(trainers=("keras", "xgboost", "fine_tune"))
    assert {decision.name: decision.uncacheable for decision in plan.nodes if decision.uncacheable} == {}
    assert plan.notes == ()
    assert len(image_scoring.graph().nodes) == 3
