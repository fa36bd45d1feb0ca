"""What makes `model.fit` on many ranks one fit. Imported in ranks alone."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from ml_platform.errors import DataError, DesyncError
from ml_platform.worker.collective import Collective, gather_json, total
from ml_platform.worker.evaluation import evaluate
from ml_platform.worker.feed import Feed, Rows
from ml_platform.worker.fitted import History
from ml_platform.worker.lanes import Batching, plan_batches
from ml_platform.worker.optimizer import distributed
from ml_platform.worker.pipeline import stream
from ml_platform.worker.proof import prove, variables_of

if TYPE_CHECKING:
    from ml_platform.worker.rank import FitSpec, Rank

CHECK_STEPS = 100
"""Steps between two checks that no rank's loss has left the numbers."""


def train_model(
    rank: Rank,
    model: Any,
    train: Feed,
    validation: Feed | None,
    spec: FitSpec,
    callbacks: Sequence[Any] = (),
    *,
    reduce: bool = True,
) -> History:
    """`rank.fit`, on feeds. `reduce=False` trains each rank for itself: see `optimizer.distributed`."""
    start = time.monotonic()
    batching = plan_batches(train.rows, batch_rows=spec.batch_rows, world_size=rank.world_size)
    with distributed(model, rank.collective, reduce=reduce):
        begin_alike(model, rank.collective, width=train.width)
        seed_rank(model, spec.seed, rank.rank)
        watch = _Watch(rank, model, validation, spec, batching)
        with _recorded(model, watch if spec.record_steps else None):
            _fit(rank, model, train, spec, batching, [watch, *callbacks])
        watch.restore_best()
    proof = prove(model, rank.collective)
    return watch.history(proof=asdict(proof), seconds=time.monotonic() - start)


def begin_alike(model: Any, collective: Collective, *, width: int) -> None:
    """Build the model and its optimizer, and give all ranks rank 0's weights and optimizer variables.

    Raises:
        DesyncError: Ranks built different models.
    """
    if not model.built:
        model.build((None, width))
    model.optimizer.build(model.trainable_variables)
    variables = variables_of(model)
    shapes: list[list[Any]] = gather_json(
        collective, [[v.path, list(v.shape), str(v.dtype)] for v in variables]
    )
    for rank, other in enumerate(shapes):
        if [entry[1:] for entry in other] != [entry[1:] for entry in shapes[0]]:
            raise _different_models(shapes[0], other, rank)
    for variable in variables:
        variable.assign(collective.broadcast(variable.numpy()))


def seed_rank(model: Any, seed: int, rank: int) -> None:
    """Seed what is random in a step by (seed, rank), so that ranks leave out different units."""
    random = np.random.default_rng([seed, rank])
    keras.utils.set_random_seed(int(random.integers(1 << 31)))
    weights = {id(variable) for variable in model.weights}
    for variable in model.variables:
        if id(variable) not in weights and variable.path.endswith("seed_generator_state"):
            variable.assign(random.integers(1 << 31, size=tuple(variable.shape)))


def _fit(
    rank: Rank, model: Any, train: Feed, spec: FitSpec, batching: Batching, callbacks: Sequence[Any]
) -> None:
    def epochs() -> Iterator[Rows]:
        for epoch in range(spec.epochs):
            yield from train.batches(
                batching, rank=rank.rank, seed=spec.seed, epoch=epoch, shuffle=spec.shuffle
            )

    with stream(epochs, width=train.width, rows=batching.share) as data:
        model.fit(
            data,
            epochs=spec.epochs,
            steps_per_epoch=batching.steps,
            callbacks=list(callbacks),
            shuffle=False,  # the feed did it
            verbose=0,
        )


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """First of the callbacks: makes the values of an epoch global, and decides with all ranks alike."""

    def __init__(
        self, rank: Rank, model: Any, validation: Feed | None, spec: FitSpec, batching: Batching
    ) -> None:
        super().__init__()
        self._rank, self._validation, self._spec, self._batching = rank, validation, spec, batching
        self._metrics: dict[str, list[float]] = {}
        self._rows_per_second: list[float] = []
        self._statistics = _Statistics(model, rank.collective)
        self._best_loss, self._best_epoch = math.inf, 0
        self._best_weights: list[Any] | None = None
        self.step_loss: tf.Variable | None = None
        self._trained_model = model

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._rank.check_cancelled()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.step_loss is not None:
            mean = total(self._rank.collective, [float(self.step_loss)])[0] / self._rank.world_size
            self._metrics.setdefault("step_loss", []).append(float(mean))
        if (batch + 1) % CHECK_STEPS == 0:
            self._mean(logs or {}, epoch=len(self._rows_per_second))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        logs.update(self._mean(logs, epoch=epoch))
        rows = self._batching.steps * self._batching.batch_rows
        self._rows_per_second.append(rows / (time.monotonic() - self._began))
        self._statistics.average()
        if self._validation is not None:
            values = evaluate(self._rank, self._trained_model, self._validation)
            logs.update({f"val_{name}": value for name, value in values.items()})
            self._decide(epoch, values["loss"])
        else:
            self._best_epoch = epoch + 1
        self._report(epoch, logs)

    def restore_best(self) -> None:
        """Bring the weights of the best epoch back, on every rank."""
        if self._best_weights is not None:
            for variable, value in zip(self._trained_model.weights, self._best_weights, strict=True):
                variable.assign(value)

    def history(self, *, proof: dict[str, str | int], seconds: float) -> History:
        return History(
            metrics=self._metrics,
            epochs=len(self._rows_per_second),
            best_epoch=self._best_epoch,
            steps=self._batching.steps,
            rows_dropped_per_epoch=self._batching.dropped,
            rows_per_second=self._rows_per_second,
            seconds=seconds,
            proof=proof,
        )

    def _mean(self, logs: dict[str, Any], *, epoch: int) -> dict[str, float]:
        names = sorted(logs)
        sums = total(self._rank.collective, [float(logs[name]) for name in names])
        means = dict(zip(names, (sums / self._rank.world_size).tolist(), strict=True))
        if not math.isfinite(means.get("loss", 0.0)):
            raise _diverged(means["loss"], epoch)
        return means

    def _decide(self, epoch: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise _diverged(loss, epoch, "validation loss")
        if self._spec.patience is None:
            self._best_epoch = epoch + 1
        elif loss < self._best_loss:
            self._best_loss, self._best_epoch = loss, epoch + 1
            self._best_weights = [variable.numpy() for variable in self._trained_model.weights]
        elif epoch + 1 - self._best_epoch >= self._spec.patience:
            self._trained_model.stop_training = True

    def _report(self, epoch: int, logs: dict[str, Any]) -> None:
        values = {name: float(value) for name, value in logs.items()}
        for name, value in values.items():
            self._metrics.setdefault(name, []).append(value)
        self._rank.log_metrics({**values, "rows_per_second": self._rows_per_second[-1]}, step=epoch)
        epochs = self._spec.epochs
        self._rank.log_progress(f"epoch {epoch + 1}/{epochs}", done=epoch + 1, total=epochs)
        self._rank.log(f"epoch {epoch + 1}/{epochs} {values}")


class _Statistics:
    """Weights that no gradient moves: moving means and variances of batch normalisation, say.

    Each rank moves them by its own rows. What is averaged is how far they moved, so that those that
    did not (frozen layers) keep their bits whatever the number of ranks.
    """

    def __init__(self, model: Any, collective: Collective) -> None:
        self._collective = collective
        floats = [v for v in model.non_trainable_weights if "float" in str(v.dtype)]
        self._variables = floats if collective.size > 1 else []
        self._before = [variable.numpy() for variable in self._variables]

    def average(self) -> None:
        """Give all ranks the mean. Collective."""
        for number, variable in enumerate(self._variables):
            before = self._before[number]
            moved = np.concatenate(self._collective.gather((variable.numpy() - before)[np.newaxis]))
            variable.assign(before + moved.mean(axis=0, dtype=np.float64).astype(before.dtype))
            self._before[number] = variable.numpy()


@contextmanager
def _recorded(model: Any, watch: _Watch | None) -> Iterator[None]:
    """Keep each step's loss: the logs that Keras gives callbacks are means since the epoch began."""
    if watch is None:
        yield
        return
    watch.step_loss = variable = tf.Variable(0.0, trainable=False)
    plain = model.compute_loss

    def compute_loss(*args: Any, **kwargs: Any) -> Any:
        loss = plain(*args, **kwargs)
        variable.assign(tf.cast(loss, tf.float32))
        return loss

    model.compute_loss = compute_loss
    model.train_function = None
    try:
        yield
    finally:
        del model.compute_loss
        model.train_function = None


def _different_models(first: list[Any], other: list[Any], rank: int) -> DesyncError:
    pairs = itertools.zip_longest(first, other, fillvalue="no further variable")
    wanted, got = next(pair for pair in pairs if pair[0][1:] != pair[1][1:])
    return DesyncError(
        f"rank {rank} built another model than rank 0",
        wanted=wanted,
        got=got,
        hint="build the model from the arguments alone, alike on every rank",
    )


def _diverged(value: float, epoch: int, what: str = "loss") -> DataError:
    return DataError(
        f"training stopped on all ranks in epoch {epoch + 1}: the {what} is {value}",
        wanted="a finite number",
        got=value,
        hint="a lower learning rate, or look for values that are infinite or not scaled",
    )
