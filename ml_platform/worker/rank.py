"""`Rank`: what a rank function gets as its first argument. It works alike on one rank and on many."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ml_platform.errors import RankError
from ml_platform.worker.collective import Collective
from ml_platform.worker.fitted import Fitted, History

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ml_platform.specs.references import Dataset

__all__ = ["Fitted", "History", "Rank", "Reporter"]


class Reporter(Protocol):
    """Where a rank's reports go."""

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def progress(self, message: str, done: float | None, total: float | None) -> None: ...

    def log(self, message: str) -> None: ...


@dataclass(frozen=True)
class FitSpec:
    """How `rank.fit` trains. `patience` None: to the last epoch, whatever validation says."""

    batch_rows: int
    epochs: int
    seed: int = 0
    shuffle: bool = True
    patience: int | None = None
    record_steps: bool = False


class Rank:
    """One of `world_size` processes that run the same function together.

    `fit`, `evaluate` and `predict` are collective: every rank calls them, in the same order.
    """

    def __init__(
        self,
        collective: Collective,
        reporter: Reporter,
        *,
        local_rank: int = 0,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.collective = collective
        self.rank = collective.rank
        self.world_size = collective.size
        self.local_rank = local_rank
        self.host = socket.gethostname()
        self._reporter = reporter
        self._cancelled = cancelled or threading.Event()

    def fit(
        self,
        model: Any,
        train: Dataset,
        *,
        validation: Dataset | None = None,
        batch_rows: int,
        epochs: int,
        seed: int = 0,
        shuffle: bool = True,
        patience: int | None = None,
        callbacks: Sequence[Any] = (),
        record_steps: bool = False,
    ) -> History:
        """Train a compiled Keras model on all ranks together, and prove that they end with equal bytes.

        Rank 0's weights are where all start. Gradients are averaged at each step, moving statistics of
        batch normalisation at the end of each epoch. The loss on `validation` counts each of its rows
        once, over all ranks; with `patience` it stops training and brings the best weights back.

        Args:
            model: Compiled; changed in place.
            train: Packed data set: `label` (classes from 0), `features`.
            validation: Packed data set of the same width.
            batch_rows: Rows per step over all ranks.
            epochs: Passes over `train` at most.
            seed: Of the order of rows; of dropout, together with the rank.
            shuffle: Deal rows anew each epoch.
            patience: Epochs without a better validation loss before it stops.
            callbacks: Keras callbacks. They run on every rank and see global values at epoch ends.
            record_steps: Also keep the global loss of each step in `history.metrics["step_loss"]`.
        Raises:
            SpecError: The model is not compiled, or a batch cannot be shared evenly.
            DataError: Fewer rows than a global batch, a corrupt file, or a loss that is no number.
            DesyncError: Ranks built different models, or ended with different bytes.
        """
        from ml_platform.worker.feed import open_feed
        from ml_platform.worker.training import train_model

        spec = FitSpec(batch_rows, epochs, seed, shuffle, patience, record_steps)
        held_out = None if validation is None else open_feed(validation)
        return train_model(self, model, open_feed(train), held_out, spec, callbacks)

    def evaluate(self, model: Any, dataset: Dataset) -> dict[str, float]:
        """Loss and metrics over all rows of `dataset`, each counted once. The same on every rank."""
        from ml_platform.worker.evaluation import evaluate
        from ml_platform.worker.feed import open_feed

        return evaluate(self, model, open_feed(dataset))

    def predict(self, model: Any, dataset: Dataset) -> NDArray[np.float32]:
        """What the model says for all rows of `dataset`, in the manifest's order.

        Returns:
            Shape (rows, outputs) on rank 0, (0, outputs) on the others.
        """
        from ml_platform.worker.evaluation import predict
        from ml_platform.worker.feed import open_feed

        return predict(self, model, open_feed(dataset))

    def fitted(self, model: Any, history: History) -> Fitted:
        """The trained model and its history, to be returned to the driver."""
        from ml_platform.worker.archive import archived

        return Fitted(
            model=archived(model) if self.rank == 0 else b"",
            history=history.metrics,
            proof=history.proof,
            epochs=history.epochs,
            best_epoch=history.best_epoch,
            steps=history.steps,
            rows_dropped_per_epoch=history.rows_dropped_per_epoch,
            rows_per_second=history.rows_per_second,
            seconds=history.seconds,
        )

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Send values to the driver now. Rank 0's alone count; values that are no numbers are left out."""
        self.check_cancelled()
        values = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        if self.rank == 0 and values:
            self._reporter.metrics(values, int(step))

    def log_progress(self, message: str, done: float | None = None, total: float | None = None) -> None:
        """Tell whoever watches how far the work is. Rank 0's word alone counts."""
        self.check_cancelled()
        if self.rank == 0:
            self._reporter.progress(message, done, total)

    def log(self, message: str) -> None:
        """A line in this rank's log file."""
        self.check_cancelled()
        self._reporter.log(message)

    def check_cancelled(self) -> None:
        """Raise if the job was cancelled. Ranks in processes are killed; in-process ones look here.

        Raises:
            RankError: The job was cancelled.
        """
        if self._cancelled.is_set():
            raise RankError("the job was cancelled")
