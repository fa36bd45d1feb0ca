"""What tasks may ask of experiment tracking. `ml_platform.tracking` implements it with MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ml_platform.specs.references import Dataset, Model
from ml_platform.specs.tables import FeatureState, SplitSpec


class TrackingRun(Protocol):
    """One MLflow run, open for writing. Safe to call from several threads."""

    run_id: str

    def log_params(self, params: Mapping[str, object]) -> None:
        """Parameters; nested models and mappings are flattened with dots."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Metrics at a step; sent in batches, flushed when the run closes."""

    def log_input(self, dataset: Dataset, *, context: str) -> None:
        """A data set that this run read: name, fingerprint, schema, rows."""

    def log_figure(self, figure: Any, artifact_file: str) -> None:
        """A matplotlib figure as a picture."""

    def log_text(self, text: str, artifact_file: str) -> None:
        """Text as an artifact."""

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Tags of the run."""

    def log_model(
        self,
        *,
        family: str,
        model_file: Path,
        state: FeatureState,
        split: SplitSpec,
        train: Dataset,
        ranks: int = 1,
    ) -> Model:
        """Log a model that takes raw rows, with its signature, an input example and its lineage."""

    def at(self, run_id: str) -> TrackingRun:
        """Another run, for adding to what it has (an evaluation of its model, say)."""
