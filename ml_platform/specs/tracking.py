"""What tasks may ask of experiment tracking. `ml_platform.tracking` implements it with MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from ml_platform.specs.contracts import Contract
from ml_platform.specs.references import Dataset, Model, ModelFamily


class TrackingNotes(Protocol):
    """One MLflow run that is written when there is time. Safe to call from several threads."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Parameters; nested models and mappings are flattened with dots."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Metrics at a step."""

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Tags of the run."""


class TrackingRun(Protocol):
    """One MLflow run, open for writing. Safe to call from several threads."""

    run_id: str

    def log_params(self, params: Mapping[str, object]) -> None:
        """Parameters; nested models and mappings are flattened with dots."""

    def log_metrics(
        self,
        metrics: Mapping[str, float],
        *,
        step: int | None = None,
        model: Model | None = None,
        dataset: Dataset | None = None,
    ) -> None:
        """Metrics at a step; sent in batches, flushed when the run closes.

        `model` also ties them to a logged model, `dataset` to the rows they were measured on.
        """

    def log_input(self, dataset: Dataset, *, context: str) -> None:
        """A data set that this run read: name, fingerprint, schema, rows."""

    def log_figure(self, figure: Any, artifact_file: str) -> None:
        """A matplotlib figure as a picture."""

    def log_text(self, text: str, artifact_file: str) -> None:
        """Text as an artifact."""

    def log_table(self, columns: Mapping[str, Sequence[object]], artifact_file: str) -> None:
        """Columns of equal length as a table that MLflow's pages show; the file ends in .json."""

    def log_file(self, path: Path) -> str:
        """A file as an artifact, under its own name. Returns its URI, `runs:/…`."""

    def latest(self, metric: str, tags: Mapping[str, object]) -> float | None:
        """The metric of the newest finished run of this experiment that has these tags and it."""

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Tags of the run."""

    def log_model(
        self,
        *,
        folder: Path,
        family: ModelFamily,
        contract: Contract,
        classes: tuple[str, ...],
        train: Dataset,
        ranks: int = 1,
        example: Any,
    ) -> Model:
        """Log a finished raw-model folder, with its signature, an input example and its lineage.

        `contract` may still hold the label; the model's input is the rest. `example` is a
        pyarrow.Table of raw rows.
        """

    def nested(self, name: str, tags: Mapping[str, object] = {}) -> AbstractContextManager[TrackingRun]:
        """A run of its own inside this one; it ends when the code inside ends."""

    def nested_later(
        self, name: str, tags: Mapping[str, object] = {}
    ) -> AbstractContextManager[TrackingNotes]:
        """The same, written beside the work: at the latest when this run closes. Nobody waits for MLflow."""

    def at(self, run_id: str) -> TrackingRun:
        """Another run, for adding to what it has (an evaluation of its model, say)."""
