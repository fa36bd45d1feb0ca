"""What ranks run in tests. A module of its own: functions travel to ranks by name."""

from __future__ import annotations

import gc
import os
import random
import resource
import signal
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ml_platform.errors import DataError, DesyncError, PlatformError, StoreError
from ml_platform.specs.references import Dataset
from ml_platform.specs.training import KerasSpec
from ml_platform.store.folders import local_path
from ml_platform.worker.collective import Alone, Collective
from ml_platform.worker.rank import FitSpec, Rank
from tasks.loops import fit_keras


def identity(rank: Rank, *args: object) -> tuple[int, int, tuple[object, ...]]:
    return rank.rank, rank.world_size, args


def report(rank: Rank, steps: int) -> int:
    for step in range(steps):
        rank.log_metrics({"loss": 1.0 / (step + 1), "nothing": float("nan")}, step)
        rank.log_progress(f"step {step + 1}/{steps}", done=step + 1, total=steps)
    rank.log("a line for the log")
    return os.getpid()


def report_own(rank: Rank) -> int:
    """Each rank has values of its own."""
    for step in range(2):
        rank.log_metrics({"loss": rank.rank + step / 2}, step)
    return rank.rank


def report_until(rank: Rank, released: Path) -> str:
    """A metric, and another one once it is let go."""
    rank.log("a line of the second job")
    rank.log_metrics({"loss": 1.0}, 0)
    deadline = time.monotonic() + 120
    while not released.exists() and time.monotonic() < deadline:
        signal.sigtimedwait([], 0.02)
    rank.log_metrics({"loss": 0.5}, 1)
    return "released"


def spans(rank: Rank, name: str) -> tuple[str, float, float]:
    """When the work began and ended, by the clock that all processes of a machine share."""
    began = time.monotonic()
    signal.sigtimedwait([], 0.05)
    rank.collective.gather(np.zeros(1))
    return name, began, time.monotonic()


def raise_value_error(rank: Rank, culprit: int = 0) -> None:
    """One rank raises; the others are in the middle of a collective."""
    if rank.rank == culprit:
        print("the last words of the rank")
        raise ValueError("seven is not even")
    rank.collective.gather(np.zeros(1))


def raise_data_error(rank: Rank) -> None:
    raise DataError("a column is empty", wanted="numbers", got="nothing", hint="fill it")


def kill_oneself(rank: Rank, culprit: int, sign: int) -> None:
    if rank.rank == culprit:
        print("the last words of the rank", flush=True)
        os.kill(os.getpid(), sign)
    rank.collective.gather(np.zeros(1))


def describe_process(rank: Rank) -> dict[str, Any]:
    """What a rank must not share with its brothers, and what it must."""
    name = os.environ.get("ML_PLATFORM_SAID")
    print(f"I am rank {rank.rank} of {name}", flush=True)
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "group": os.getpgid(0),
        "draw": random.random(),
        "numpy": float(np.random.rand()),
        "HOROVOD_RANK": os.environ.get("HOROVOD_RANK"),
        "ML_PLATFORM_SAID": name,
        "temporary": tempfile.gettempdir(),
    }


def leave(rank: Rank, code: int) -> None:
    os._exit(code)


def exhaust_memory(rank: Rank) -> int:
    """Ask for more than a limit that is set first: the machine itself stays usable."""
    _limit_memory()
    return len(bytearray(1 << 30))


def exhaust_memory_of_tensorflow(rank: Rank) -> int:
    """In C++, where no MemoryError comes from."""
    import tensorflow as tf

    _limit_memory()
    return len(tf.zeros([1 << 28]))


def _limit_memory() -> None:
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))


def unpicklable(rank: Rank) -> object:
    return (number for number in range(3))


def endless(rank: Rank, marker: Path) -> None:
    """Works until it is ended; tells by a metric that it began."""
    marker.write_text(str(os.getpid()))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        rank.log_metrics({"working": 1.0}, 0)
        signal.sigtimedwait([], 0.02)


def listening() -> set[tuple[str, int]]:
    """Addresses and ports at which this process listens."""
    import psutil

    found = psutil.Process().net_connections(kind="inet")
    return {tuple(each.laddr) for each in found if each.status == psutil.CONN_LISTEN}


def listening_addresses(rank: Rank) -> set[tuple[str, int]]:
    """Those of a rank, in the middle of a job that it tells of."""
    rank.collective.gather(np.zeros(1))
    rank.log_metrics({"connected": 1.0}, 0)
    return listening()


def soil_session(rank: Rank) -> str:
    """Leave Keras as no job should find it."""
    import keras

    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("mixed_float16")
    keras.config.set_epsilon(0.5)
    keras.config.set_image_data_format("channels_first")
    return str(keras.layers.Dense(1).name)


def feeds_left(rank: Rank) -> int:
    """How many feeds earlier jobs left in this process."""
    from ml_platform.worker.feed import Feed

    gc.collect()
    return sum(isinstance(found, Feed) for found in gc.get_objects())


def pages_for_arrays(rank: Rank, train: Dataset) -> int:
    """How many pages the kernel gives for 64 arrays of 512 pages, beside an open feed, where as many were let
    go of just before."""
    from ml_platform.worker.feed import open_feed
    from ml_platform.worker.lanes import plan_batches
    from ml_platform.worker.pipeline import steps_of

    feed = open_feed(train)
    batching = plan_batches(feed.rows, batch_rows=100, world_size=rank.world_size)
    chunks = partial(feed.chunks, batching, rank=rank.rank, seed=0, epoch=0, shuffle=True)
    with steps_of(feed, chunks, batching) as data:
        for _ in data:
            pass
        pages = []
        for _ in range(2):
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
            arrays = [np.ones(2 << 20, np.uint8) for _ in range(64)]
            del arrays
            pages.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
        return pages[1]


def look_at_session(rank: Rank) -> tuple[str | float, ...]:
    import keras

    found = keras.config.epsilon(), keras.config.image_data_format(), keras.layers.Dense(1).name
    return keras.config.floatx(), keras.config.dtype_policy().name, *found


def network(width: int, classes: int, *, plain: bool, rate: float = 0.05) -> Any:
    """Compiled. `plain`: without what ranks do differently on purpose (dropout, batch normalisation)."""
    import keras

    hidden: list[Any] = [
        keras.layers.Dense(16, "relu", kernel_initializer=keras.initializers.HeUniform(seed=1))
    ]
    if not plain:
        hidden += [keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)]
    output = keras.layers.Dense(
        classes, "softmax", kernel_initializer=keras.initializers.GlorotUniform(seed=2)
    )
    model = keras.Sequential([keras.Input((width,)), *hidden, output])
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def chunks_made(rank: Rank, table: Dataset) -> list[int]:
    """Chunks that the feed has made when the first step is there, and a while later at most."""
    from ml_platform.worker import feed as feed_module
    from ml_platform.worker.columns import Columns
    from ml_platform.worker.lanes import plan_batches
    from ml_platform.worker.pipeline import steps_of

    feed = feed_module.open_feed(table, Columns(None, "label", None))
    batching = plan_batches(feed.rows, batch_rows=64, world_size=1)
    made: list[int] = []

    def chunks() -> Any:
        for chunk in feed.chunks(batching, rank=0, seed=0, epoch=0, shuffle=False):
            made.append(len(made))
            yield chunk

    bytes_of_all, feed_module.CHUNK_BYTES = feed_module.CHUNK_BYTES, 1
    try:
        with steps_of(feed, chunks, batching) as data:
            steps = iter(data)
            next(steps)
            deadline = time.monotonic() + 60
            while len(made) < 2 and time.monotonic() < deadline:
                signal.sigtimedwait([], 0.01)
            ahead = list(made)
            for _ in steps:
                pass  # to its end: TensorFlow keeps a pass that is not over
            return ahead
    finally:
        feed_module.CHUNK_BYTES = bytes_of_all


def weights_of(model: Any) -> list[Any]:
    return [variable.numpy() for variable in model.weights]


def alone(rank: Rank) -> Rank:
    """This rank without the others."""
    return Rank(Alone(), rank._reporter)


def fit(rank: Rank, train: Dataset, validation: Dataset, *, plain: bool = False, epochs: int = 4) -> Any:
    """Everything a fit leaves: history, weights, optimizer's class and its archive."""
    model = network(8, 3, plain=plain)
    history = rank.fit(model, train, validation=validation, batch_rows=64, epochs=epochs, seed=1, patience=2)
    return (
        history,
        weights_of(model),
        type(model.optimizer).__mro__[0].__module__,
        rank.fitted(model, history),
    )


def step_losses(rank: Rank, train: Dataset, steps: int) -> tuple[list[float], list[float]]:
    """Global loss of each step: of all ranks together, and of this one alone on all rows."""
    losses = []
    for world in (rank, alone(rank)):
        model = network(8, 3, plain=True)
        history = world.fit(model, train, batch_rows=32, epochs=2, seed=1, shuffle=False, record_steps=True)
        losses.append(history.metrics["step_loss"][:steps])
    return losses[0], losses[1]


def fit_without_reduction(rank: Rank, train: Dataset) -> str:
    """What the proof says when gradients stay on their rank."""
    from ml_platform.worker.feed import open_feed
    from ml_platform.worker.training import train_model

    spec = FitSpec(batch_rows=64, epochs=1)
    try:
        train_model(rank, network(8, 3, plain=True), open_feed(train), None, spec, reduce=False)
    except DesyncError as error:
        return str(error)
    return "the proof held"


def caught(rank: Rank, train: Dataset, options: dict[str, Any]) -> tuple[str, str]:
    """The error of a fit that must fail, caught on each rank."""
    rate = options.pop("rate", 0.05)
    width = options.pop("width", 8) + (rank.rank if options.pop("uneven", False) else 0)
    model = network(width, 3, plain=True, rate=rate)
    try:
        rank.fit(model, train, **{"batch_rows": 64, "epochs": 3, **options})
    except PlatformError as error:
        return type(error).__name__, str(error)
    return "", ""


class Recorder:
    """A collective that remembers which kinds of gradients passed."""

    def __init__(self, inner: Collective) -> None:
        self._inner = inner
        self.rank, self.size = inner.rank, inner.size
        self.kinds: set[str] = set()

    @property
    def allreduce_s(self) -> float:
        return self._inner.allreduce_s

    def average_gradients(self, gradients: Sequence[Any]) -> list[Any]:
        self.kinds |= {type(gradient).__name__ for gradient in gradients}
        return self._inner.average_gradients(gradients)

    def broadcast(self, value: Any) -> Any:
        return self._inner.broadcast(value)

    def gather(self, value: Any) -> list[Any]:
        return self._inner.gather(value)

    def close(self) -> None:
        self._inner.close()


def fit_sparse(rank: Rank, train: Dataset) -> tuple[set[str], list[Any], list[Any]]:
    """An embedding (sparse gradients), an unused layer (None), clipping: on all ranks, and on one alone."""
    import keras

    class Words(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.table = keras.layers.Embedding(
                32, 4, embeddings_initializer=keras.initializers.RandomUniform(seed=1)
            )
            self.head = keras.layers.Dense(
                3, "softmax", kernel_initializer=keras.initializers.HeNormal(seed=2)
            )
            self.unused = keras.layers.Dense(2, kernel_initializer="ones")

        def build(self, shape: Any) -> None:
            self.table.build(shape)
            self.head.build((None, 8 * 4))
            self.unused.build((None, 4))
            self.built = True

        def call(self, x: Any) -> Any:
            words = keras.ops.cast(keras.ops.clip(keras.ops.abs(x) * 8, 0, 31), "int32")
            return self.head(keras.ops.reshape(self.table(words), (-1, 32)))

    recorder = Recorder(rank.collective)
    both = []
    for world in (Rank(recorder, rank._reporter), alone(rank)):
        model = Words()
        model.compile(keras.optimizers.Adam(0.01, clipnorm=0.1), loss="sparse_categorical_crossentropy")
        world.fit(model, train, batch_rows=64, epochs=1, shuffle=False)
        both.append(weights_of(model))
    return recorder.kinds, both[0], both[1]


def fit_own_step(rank: Rank, train: Dataset) -> tuple[list[float], list[Any]]:
    """A model that creates its layers and no weights before it is called, with a `train_step` of its own."""
    import keras
    import tensorflow as tf

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.head = keras.layers.Dense(3, "softmax")

        def call(self, x: Any) -> Any:
            return self.head(tf.abs(x[:, :4]))

        def train_step(self, data: Any) -> Any:
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            with tf.GradientTape() as tape:
                out = self(x, training=True)
                loss = self.compute_loss(x=x, y=y, y_pred=out, sample_weight=weight)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            self.metrics[0].update_state(loss)
            return self.compute_metrics(x, y, out, sample_weight=weight)

    model = Own()
    model.compile("adam", loss="sparse_categorical_crossentropy")
    history = rank.fit(model, train, batch_rows=64, epochs=2)
    return history.metrics["loss"], weights_of(model)


def overflow_on_one_rank(rank: Rank) -> tuple[list[float], list[float]]:
    """Loss scaling: weights after a step that overflows on rank 1 alone, and after a good one."""
    import keras
    import tensorflow as tf

    from ml_platform.worker.optimizer import distributed

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    inner = keras.optimizers.SGD(1.0)
    model.compile(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0), loss="mse")
    model.optimizer.build(model.trainable_variables)
    model.trainable_variables[0].assign([[1.0]])
    seen = []
    with distributed(model, rank.collective):
        for gradient in (float("inf") if rank.rank == 1 else 2.0, 2.0 * (rank.rank + 1)):
            model.optimizer.apply([tf.constant([[gradient]])])
            seen.append(float(model.trainable_variables[0].numpy()[0, 0]))
    return seen, [float(model.optimizer.dynamic_scale.numpy())]


def predict_and_evaluate(rank: Rank, dataset: Dataset) -> tuple[Any, dict[str, float], Any]:
    """Over all ranks, and on this rank alone."""
    model = network(8, 3, plain=True)
    together = rank.predict(model, dataset), rank.evaluate(model, dataset)
    lonely = alone(rank)
    return together[0], together[1], (lonely.predict(model, dataset), lonely.evaluate(model, dataset))


def chance_of_the_second_class(
    rank: Rank, train: Dataset, validation: Dataset, spec: KerasSpec, weights: dict[int, float] | None
) -> float:
    """What the flow's own function thinks of the rows of the validation part, on average."""
    import keras

    fitted = fit_keras(rank, train, validation, spec, 2, "binary", weights)
    if rank.rank:
        return 0.0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        file.write_bytes(fitted.model)
        model = keras.saving.load_model(file)
    return float(alone(rank).predict(model, validation)[:, -1].mean())


def checkpointed(rank: Rank, train: Dataset, folder: Path) -> tuple[str, float]:
    """A checkpoint saved in the middle of a distributed fit opens as a plain model."""
    import keras

    path = folder / f"rank-{rank.rank}.keras"
    saver = keras.callbacks.ModelCheckpoint(path)
    model = network(8, 3, plain=True)
    rank.fit(model, train, batch_rows=64, epochs=1, callbacks=[saver])
    if rank.rank:
        return "", float(path.exists())  # rank 0 alone writes
    loaded = keras.saving.load_model(path)
    largest = max(
        float(np.abs(a - b).max(initial=0))
        for a, b in zip(weights_of(model), weights_of(loaded), strict=True)
    )
    return f"{type(loaded.optimizer).__module__}.{type(loaded.optimizer).__qualname__}", largest


def falter(rank: Rank, folder: Path, how: str, times: int) -> int:
    """Fail `times` times in one of many ways, then say how often it was called."""
    calls = len(list(folder.glob("call-*"))) + 1
    (folder / f"call-{calls}").touch()
    if calls > times:
        return calls
    if how == "infrastructure":
        raise StoreError("the store does not answer")
    if how == "exits":
        os._exit(7)
    if how == "user":
        raise ValueError("seven is not even")
    if how == "data":
        raise DataError("a column is empty")
    os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    return 0


def fit_once_lost(
    rank: Rank,
    train: Dataset,
    validation: Dataset,
    folder: Path,
    losing: tuple[int, int] | None,
    cut: bool = False,
) -> Any:
    """A fit with all kinds of state, whose rank 1 is killed in the middle of an epoch, once.

    `losing`: epoch and step. `cut`: its newest checkpoint is cut short then. Returns epochs that ran here,
    metrics, the rate and weights.
    """
    import keras

    begun: list[int] = []

    class Killer(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            begun.append(epoch)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            here = (begun[-1], batch) == losing and rank.rank == 1
            if here and not (folder / "lost").exists():
                (folder / "lost").touch()
                if cut:
                    assert rank.checkpoint_uri is not None
                    newest = max(local_path(rank.checkpoint_uri).glob("fit-1-*/*"))
                    os.truncate(newest, newest.stat().st_size - 5)
                os.kill(os.getpid(), signal.SIGKILL)

    model = network(8, 3, plain=False)
    model.compile(
        keras.optimizers.Adam(0.02, use_ema=True, ema_overwrite_frequency=4, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = rank.fit(
        model,
        train,
        validation=validation,
        batch_rows=64,
        epochs=7,
        seed=3,
        patience=6,
        warmup_epochs=2,
        checkpoint_every_epochs=2,
        callbacks=[
            keras.callbacks.ReduceLROnPlateau(monitor="val_loss", min_delta=10.0, patience=2, factor=0.5),
            keras.callbacks.EarlyStopping(monitor="loss", patience=5, restore_best_weights=True),
            Killer(),
        ],
    )
    second = network(8, 3, plain=True)
    rank.fit(second, train, batch_rows=64, epochs=2, seed=4, checkpoint_every_epochs=1)
    return (
        begun,
        history.metrics,
        float(model.optimizer.learning_rate),
        [*weights_of(model), *weights_of(second)],
    )
