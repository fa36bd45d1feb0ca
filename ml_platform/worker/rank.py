"""`Rank`: what a rank function gets as its first argument. It works alike on one rank and on many."""

from __future__ import annotations

import inspect
import math
import socket
import threading
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol

from ml_platform.errors import RankError
from ml_platform.worker.collective import Collective
from ml_platform.worker.fit_spec import CHECK_STEPS, FitSpec, refuse, refuse_both_weights
from ml_platform.worker.fitted import Fitted, History

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ml_platform.specs.references import Dataset
    from ml_platform.worker.columns import Columns

__all__ = ["FitSpec", "Fitted", "History", "Rank", "Reporter"]


class Reporter(Protocol):
    """Where a rank's reports go."""

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def progress(self, message: str, done: float | None, total: float | None) -> None: ...

    def log(self, message: str) -> None: ...


class Rank:
    """One of `world_size` processes that run the same function together.

    `fit`, `evaluate` and `predict` are collective: every rank calls them, in the same order.

    Attributes:
        checkpoint_uri: Where fits of this job leave checkpoints. None: its gang is not restarted.
        fits: How many this job has begun here.
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
        self.checkpoint_uri: str | None = None
        self.fits = 0
        self._reporter = reporter
        self._cancelled = cancelled or threading.Event()

    def fit(
        self,
        model: Any,
        train: Dataset | str | PathLike[str],
        *,
        features: Sequence[str] | None = None,
        label: str = "label",
        weight: str | None = None,
        validation: Dataset | str | PathLike[str] | None = None,
        batch_rows: int,
        epochs: int,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        patience: int | None = None,
        validation_freq: int = 1,
        callbacks: Any = (),
        class_weight: Mapping[int, float] | None = None,
        warmup_epochs: int | None = None,
        verbose: int = 0,
        record_steps: bool = False,
        check_every_steps: int = CHECK_STEPS,
        checkpoint_every_epochs: int | None = None,
        **refused: object,
    ) -> History:
        """Train a compiled Keras model on all ranks together, and prove that they end with equal bytes.

        Rank 0's weights are where all start. Gradients are averaged at each step, moving statistics of
        batch normalisation at the end of each epoch. The loss on `validation` counts each of its rows
        once, over all ranks; with `patience` it stops training and brings the best weights back.

        Arguments that Keras' `fit` has too mean the same here. Callbacks run on every rank and see global
        values at epoch ends, so that all decide alike; those of Keras that write files run on rank 0. A
        callback that sets `model.stop_training` within an epoch, on any rank, stops all at the next check.

        Args:
            model: Compiled; changed in place.
            train: A data set of the store; or a Parquet file, or a folder of them, by path or URI.
            features: Numeric columns, which become one float32 matrix. Default: the packed column `features`.
            label: Column of whole numbers (classes from 0) or of floats (values).
            weight: Column with the weight of each row in the loss.
            validation: With the same columns as `train`.
            batch_rows: Rows per step over all ranks.
            epochs: Passes over `train` at most.
            initial_epoch: Epochs that count as done.
            steps_per_epoch: Steps after which an epoch ends. Default: all full batches.
            seed: Of the order of rows; of dropout, together with rank and epoch.
            shuffle: Deal rows anew each epoch.
            patience: Epochs without a better validation loss before it stops.
            validation_freq: Epochs from one validation to the next.
            callbacks: Keras callbacks.
            class_weight: Weight of each class in the loss. Not together with `weight`.
            warmup_epochs: Climb to the optimizer's rate times the ranks within these epochs. 0: scaled from
                the start. Default: the rate stays, since `batch_rows` does not grow with the ranks.
            verbose: Of Keras, for the log of rank 0.
            record_steps: Also keep the global loss of each step in `history.metrics["step_loss"]`.
            check_every_steps: Steps from one comparison of all ranks' losses and weights to the next, at
                least: it gets rarer until it takes 1 % of the time.
            checkpoint_every_epochs: Epochs from one checkpoint to the next, from which a gang with
                `max_restarts` goes on after a rank was lost. Default: it begins again.
            refused: What Keras' `fit` takes and this cannot: the error says what to use instead.
        Raises:
            SpecError: The model is not compiled, a batch cannot be shared evenly, or an argument is refused.
            DataError: Fewer rows than a global batch, a corrupt file, or a loss that is no number.
            DesyncError: Ranks built different models, or hold different bytes.
        """
        from ml_platform.worker.feed import open_feed
        from ml_platform.worker.training import train_model

        refuse(refused, _FIT_ARGUMENTS)
        self.fits += 1
        spec = FitSpec(
            batch_rows=batch_rows,
            epochs=epochs,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            seed=seed,
            shuffle=shuffle,
            patience=patience,
            validation_freq=validation_freq,
            class_weight=class_weight,
            warmup_epochs=warmup_epochs,
            verbose=verbose,
            record_steps=record_steps,
            check_every_steps=check_every_steps,
            checkpoint_every_epochs=checkpoint_every_epochs,
        )
        refuse_both_weights(weight, class_weight)
        columns = _columns(features, label, weight)
        held_out = None if validation is None else open_feed(validation, columns)
        return train_model(self, model, open_feed(train, columns), held_out, spec, callbacks)

    def evaluate(
        self,
        model: Any,
        dataset: Dataset | str | PathLike[str],
        *,
        features: Sequence[str] | None = None,
        label: str = "label",
        weight: str | None = None,
    ) -> dict[str, float]:
        """Loss and metrics over all rows of `dataset`, each counted once. The same on every rank."""
        from ml_platform.worker.evaluation import evaluate
        from ml_platform.worker.feed import open_feed

        return evaluate(self, model, open_feed(dataset, _columns(features, label, weight)))

    def predict(
        self, model: Any, dataset: Dataset | str | PathLike[str], *, features: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """What the model says for all rows of `dataset`, in the order of its files. It needs no label.

        Returns:
            Shape (rows, outputs) on rank 0, (0, outputs) on the others.
        """
        from ml_platform.worker.evaluation import predict
        from ml_platform.worker.feed import open_feed

        return predict(self, model, open_feed(dataset, _columns(features, None, None)))

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
            phases=history.phases,
        )

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Send values to the driver now; those that are no numbers are left out.

        Rank 0's are the job's, which `on_metrics` hears. Those of any rank are in the stream of a submitted
        job: `job.submit(…).metrics(rank)`.
        """
        self.check_cancelled()
        values = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        if values:
            self._reporter.metrics(values, int(step))

    def log_progress(self, message: str, done: float | None = None, total: float | None = None) -> None:
        """Tell whoever watches how far the work is. Rank 0's word alone counts."""
        self.check_cancelled()
        if self.rank == 0:
            self._reporter.progress(message, done, total)

    def tell(self, message: str) -> None:
        """A line for whoever called the job, from any rank."""
        self.check_cancelled()
        self._reporter.progress(message, None, None)

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


def _columns(features: Sequence[str] | None, label: str | None, weight: str | None) -> Columns:
    from ml_platform.worker.columns import Columns

    return Columns(None if features is None else tuple(features), label, weight)


_FIT_ARGUMENTS = [name for name in inspect.signature(Rank.fit).parameters if name not in ("self", "refused")]
