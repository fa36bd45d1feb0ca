"""Keys of tasks that come with the platform."""

from __future__ import annotations

from typing import Any
from unittest import mock

from ml_platform.engine.code import code_of
from ml_platform.images import featurise
from ml_platform.inference import any_model, worker_models
from tasks.images import apply_images
from tasks.score import batch_predict


def test_what_a_process_keeps_for_later_is_in_no_key() -> None:
    """A model that was opened, or looked at, must not make the next plan of this process another one."""
    before = [code_of(task.function) for task in (batch_predict, apply_images)]
    assert [code.uncacheable for code in before] == [(), ()]
    looked_at: Any = any_model._looked_at()
    models: Any = worker_models._models()
    networks: Any = featurise._networks()
    with (
        mock.patch.dict(looked_at, kept=object()),
        mock.patch.dict(models, kept=object()),
        mock.patch.dict(networks, kept=object()),
    ):
        assert [code_of(task.function) for task in (batch_predict, apply_images)] == before
