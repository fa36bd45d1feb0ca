"""A Keras model as bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_platform.store.leftovers import scratch_folder


def archived(model: Any) -> bytes:
    """The `.keras` archive of a model: architecture, weights, how it was compiled, optimizer state."""
    with scratch_folder() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()
