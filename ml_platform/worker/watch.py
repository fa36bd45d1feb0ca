"""The callbacks around a user's own: global values before them, what all ranks decide after them.

Imported in ranks alone.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from ml_platform.errors import SpecError
from ml_platform.worker.collective import Collective, gather_json, total
from ml_platform.worker.evaluation import evaluate_apart
from ml_platform.worker.feed import Feed
from ml_platform.worker.fitted import History
from ml_platform.worker.lanes import Batching
from ml_platform.worker.lookout import BadLoss, Lookout, bad_loss, diverged
from ml_platform.worker.metrics import global_values
from ml_platform.worker.timing import FitClock
from ml_platform.worker.warmup import warmup_rates

if TYPE_CHECKING:
    from ml_platform.worker.fit_spec import FitSpec
    from ml_platform.worker.rank import Rank
    from ml_platform.worker.recovery import Progress


class Watch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """First of the callbacks: makes the values of an epoch global, so that all ranks' callbacks see the same.

    Attributes:
        metrics: Global values per epoch.
        rows_per_second: Of each epoch, over all ranks.
        best_loss, best_epoch, best_weights: For `patience`. Epochs from 1.
        epoch: The one under way, from 0.
        bad: The first loss of this rank in it that is no number.
        clock: Where the time goes.
    """

    def __init__(
        self,
        rank: Rank,
        model: Any,
        validation: Feed | None,
        spec: FitSpec,
        batching: Batching,
        callbacks: Sequence[Any],
        rates: Sequence[float],
    ) -> None:
        super().__init__()
        self._rank, self._validation, self._spec, self._batching = rank, validation, spec, batching
        self._others = callbacks
        self._trained_model = model
        self._statistics = _Statistics(model, rank.collective)
        self._rates = rates
        self.metrics: dict[str, list[float]] = {}
        self.rows_per_second: list[float] = []
        self.best_loss, self.best_epoch = math.inf, 0
        self.best_weights: list[Any] | None = None
        self.epoch = spec.initial_epoch
        self.bad: BadLoss | None = None
        self.step_loss: tf.Variable | None = None
        self.clock = FitClock(rank.collective)

    def on_train_begin(self, logs: Any = None) -> None:
        rng = np.random.default_rng([self._spec.seed, self._rank.rank])
        keras.utils.set_random_seed(int(rng.integers(1 << 31)))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.bad = epoch, None
        # Anew each epoch, so that a fit that goes on from a checkpoint leaves out the same units.
        seed_epoch(self._trained_model, self._spec.seed, self._rank.rank, epoch)
        if epoch < len(self._rates):
            self._trained_model.optimizer.learning_rate = self._rates[epoch]
        self._began = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._rank.check_cancelled()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.bad = self.bad or bad_loss((logs or {}).get("loss", 0.0), batch)
        if self.step_loss is not None:
            mean = total(self._rank.collective, [float(self.step_loss)])[0] / self._rank.world_size
            self.metrics.setdefault("step_loss", []).append(float(mean))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        rows = self._batching.steps * self._batching.batch_rows
        logs.update(global_values(self._trained_model, self._rank.collective, logs, rows=rows))
        self._check_finite(self.bad, logs.get("loss", 0.0))
        took_s = time.monotonic() - self._began
        self.clock.epochs_s += took_s
        self.rows_per_second.append(rows / took_s)
        self._statistics.average()
        if self._validation is None:
            self.best_epoch = epoch + 1
        elif (epoch + 1) % self._spec.validation_freq == 0:
            with self.clock.validation.running():
                values, own = self._validated(self._validation)
            self._check_finite(own, values["loss"], "validation loss")
            logs.update({f"val_{name}": value for name, value in values.items()})
            self._decide(epoch, values["loss"])
        self._report(epoch, logs)

    def restore_best(self) -> None:
        """Bring the weights of the best epoch back, on every rank."""
        if self.best_weights is not None:
            for variable, value in zip(self._trained_model.weights, self.best_weights, strict=True):
                variable.assign(value)

    def history(self, lookout: Lookout, *, proof: dict[str, str | int], seconds: float) -> History:
        return History(
            metrics=self.metrics,
            epochs=len(self.rows_per_second),
            best_epoch=self.best_epoch,
            steps=self._batching.steps,
            rows_dropped_per_epoch=self._batching.dropped,
            rows_per_second=self.rows_per_second,
            seconds=seconds,
            checks=lookout.looks,
            check_seconds=lookout.seconds,
            proof=proof,
            phases=self.clock.everyone(),
        )

    def _check_finite(self, own: BadLoss | None, whole: float, metric: str = "loss") -> None:
        """Raise if a rank's loss is no number, or that of all together. Collective."""
        found = gather_json(self._rank.collective, own)
        if not math.isfinite(whole) and not any(found):
            found = [bad_loss(whole, self._last_step)] * len(found)
        if any(found):
            raise diverged(found, self.epoch, metric)

    @property
    def _last_step(self) -> int:
        return self._batching.steps - 1

    def _validated(self, validation: Feed) -> tuple[dict[str, float], BadLoss | None]:
        """Values over all ranks, and this rank's loss if it is no number.

        Callbacks may swap weights for the time of an evaluation, as `SwapEMAWeights` does.
        """
        for callback in self._others:
            callback.on_test_begin()
        values, own = evaluate_apart(self._rank, self._trained_model, validation)
        for callback in self._others:
            callback.on_test_end(values)
        return values, bad_loss(own.get("loss", 0.0), self._last_step)

    def _decide(self, epoch: int, loss: float) -> None:
        if self._spec.patience is None:
            self.best_epoch = epoch + 1
        elif loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, epoch + 1
            self.best_weights = [variable.numpy() for variable in self._trained_model.weights]
        elif epoch + 1 - self.best_epoch >= self._spec.patience:
            self._trained_model.stop_training = True

    def _report(self, epoch: int, logs: dict[str, Any]) -> None:
        values = {name: float(value) for name, value in logs.items()}
        for name, value in values.items():
            self.metrics.setdefault(name, []).append(value)
        self._rank.log_metrics({**values, "rows_per_second": self.rows_per_second[-1]}, step=epoch)
        epochs = self._spec.epochs
        self._rank.log_progress(f"epoch {epoch + 1}/{epochs}", done=epoch + 1, total=epochs)
        self._rank.log(f"epoch {epoch + 1}/{epochs} {values}")


class Accord(keras.callbacks.Callback):  # type: ignore[misc]
    """Last of the callbacks: what one rank alone wishes becomes what all do, at the same step.

    A rank that stopped by itself would leave the others waiting for its gradients for good.
    """

    def __init__(
        self,
        rank: Rank,
        model: Any,
        spec: FitSpec,
        watch: Watch,
        callbacks: Sequence[Any],
        progress: Progress,
    ) -> None:
        super().__init__()
        self.lookout = Lookout(model, rank.collective, spec)
        self._rank, self._trained_model, self._spec = rank, model, spec
        self._watch, self._others, self._progress = watch, callbacks, progress
        self._wants_stop = False
        self._epoch = self._step = 0

    def on_train_begin(self, logs: Any = None) -> None:
        self._progress.bring_back(self._watch, self._others)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._step = epoch, -1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._collect()
        steps, self._step = batch - self._step, batch
        if self.lookout.is_due(steps) and self.lookout.look(
            self._watch.bad, epoch=self._epoch, wants_stop=self._wants_stop
        ):
            self._stop()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._collect()
        if total(self._rank.collective, [float(self._wants_stop)])[0]:
            self._stop()
        is_over = self._trained_model.stop_training or epoch + 1 == self._spec.epochs
        self._progress.keep(epoch, self._watch, self._others, is_over=is_over)

    def _collect(self) -> None:
        if self._trained_model.stop_training:
            self._wants_stop, self._trained_model.stop_training = True, False

    def _stop(self) -> None:
        self._wants_stop = self._trained_model.stop_training = True


def seed_epoch(model: Any, seed: int, rank: int, epoch: int) -> None:
    """Seed what is random in a step by (seed, rank, epoch), so that ranks leave out different units.

    Not TensorFlow's own seed: setting it empties its caches, which the next step and the next evaluation
    would pay for with some 100 ms each. Layers of Keras draw from the variables that are set here.
    """
    rng = np.random.default_rng([seed, rank, epoch])
    drawn = int(rng.integers(1 << 31))
    random.seed(drawn)
    np.random.seed(drawn)
    weights = {id(variable) for variable in model.weights}
    for variable in model.variables:
        if id(variable) not in weights and variable.path.endswith("seed_generator_state"):
            variable.assign(rng.integers(1 << 31, size=tuple(variable.shape)))


@contextmanager
def recorded(model: Any, watch: Watch, *, record: bool) -> Iterator[None]:
    """Keep each step's loss: the logs that Keras gives callbacks are means since the epoch began."""
    if not record:
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


def warming_rates(model: Any, spec: FitSpec, world_size: int) -> list[float]:
    """Rates of the epochs that warm up, and of the first one after them; others belong to callbacks."""
    if spec.warmup_epochs is None:
        return []
    optimizer = model.optimizer
    try:
        rate = float(optimizer.learning_rate)
        optimizer.learning_rate = rate
    except (TypeError, AttributeError) as error:
        raise SpecError(
            "a rate that follows a schedule, or several rates, cannot be warmed up",
            wanted="an optimizer with a number as its learning rate",
            got=error,
            hint="leave warmup_epochs out, or put the warm-up into the schedule",
        ) from error
    rates = warmup_rates(rate, world_size=world_size, epochs=spec.epochs, warmup_epochs=spec.warmup_epochs)
    return [float(value) for value in rates[: spec.warmup_epochs + 1]]
