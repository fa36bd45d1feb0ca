"""Fits that two ranks must do as one process on the joined batches. Functions travel to ranks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ml_platform.errors import DesyncError, DivergedError, PlatformError
from ml_platform.specs.references import Dataset
from ml_platform.worker.rank import Rank
from tests.worker.rank_functions import alone, network, weights_of


def optimizers() -> dict[str, Callable[[], Any]]:
    """By the name of the case. Every optimizer that Keras has is there: a test compares the names."""
    from keras import optimizers as o

    return {
        "SGD": lambda: o.SGD(0.05, momentum=0.9, nesterov=True),
        "Adam": lambda: o.Adam(0.01, amsgrad=True),
        "AdamW": lambda: o.AdamW(0.01, weight_decay=0.1),
        "Adamax": lambda: o.Adamax(0.01),
        "Adagrad": lambda: o.Adagrad(0.05),
        "Adadelta": lambda: o.Adadelta(0.5),
        "Adafactor": lambda: o.Adafactor(0.01),
        "Ftrl": lambda: o.Ftrl(0.05),
        "Lamb": lambda: o.Lamb(0.01),
        "Lion": lambda: o.Lion(0.001),
        "Muon": lambda: o.Muon(0.01),
        "Nadam": lambda: o.Nadam(0.01),
        "RMSprop": lambda: o.RMSprop(0.01, centered=True),
        "ScheduleFreeAdamW": lambda: o.ScheduleFreeAdamW(0.01),
        "LossScaleOptimizer": lambda: o.LossScaleOptimizer(o.Adam(0.01), dynamic_growth_steps=3),
        "MultiOptimizer": lambda: o.MultiOptimizer(o.OptimizerMap(o.SGD(0.05), {".*kernel": o.Adam(0.01)})),
        "clipnorm": lambda: o.Adam(0.01, clipnorm=0.05),
        "clipvalue": lambda: o.SGD(0.05, clipvalue=0.01),
        "global_clipnorm": lambda: o.SGD(0.05, global_clipnorm=0.1),
        "EMA": lambda: o.SGD(0.05, use_ema=True, ema_momentum=0.5),
        "EMA that overwrites": lambda: o.SGD(0.05, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
        "accumulation": lambda: o.Adam(0.01, gradient_accumulation_steps=4),
        "accumulation and clipping": lambda: o.Adam(0.01, gradient_accumulation_steps=2, clipnorm=0.05),
        "schedule": lambda: o.SGD(o.schedules.ExponentialDecay(0.05, 3, 0.5)),
    }


class Compared(NamedTuple):
    """Weights and metrics of a fit."""

    weights: list[Any]
    metrics: dict[str, list[float]]


def compare(rank: Rank, train: Dataset, cases: list[str]) -> dict[str, tuple[Compared, Compared | None]]:
    """Each case on all ranks together; then each rank alone takes its share, on the joined batches."""
    together = {case: _fitted(rank, train, case) for case in cases}
    by_one = {case: _fitted(alone(rank), train, case) for case in cases[rank.rank :: rank.world_size]}
    return {case: (fitted, by_one.get(case)) for case, fitted in together.items()}


def _fitted(world: Rank, train: Dataset, case: str) -> Compared:
    model = _model(case)
    history = world.fit(model, train, batch_rows=64, epochs=2, seed=1, class_weight=_class_weight(case))
    return Compared(weights_of(model), history.metrics)


def _class_weight(case: str) -> dict[int, float] | None:
    return {0: 3.0, 1: 0.5, 2: 1.0} if case == "class weights" else None


def _model(case: str) -> Any:
    import keras

    if case == "mixed_float16":
        keras.config.set_dtype_policy("mixed_float16")
    model = _words() if case.startswith("sparse") else network(8, 3, plain=True)
    keras.config.set_dtype_policy("float32")
    if case == "custom train_step":
        model = _own_step(model)
    name = case.removeprefix("sparse ")
    optimizer = optimizers().get(name, lambda: keras.optimizers.SGD(0.05, momentum=0.9))()
    model.compile(
        optimizer,
        loss="sparse_categorical_crossentropy",
        # Keras asks for the values of compiled metrics, which this step does not update.
        metrics=None if case == "custom train_step" else ["accuracy"],
        steps_per_execution=3 if case == "steps_per_execution" else 1,
        jit_compile=case == "jit_compile",
        run_eagerly=case == "eager",
    )
    return model


def _own_step(inner: Any) -> Any:
    import keras
    import tensorflow as tf

    class Model(keras.Model):
        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=y, y_pred=self(x, training=True)) * 2.0
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss, "largest": tf.reduce_max(x)}

    return Model(inner.inputs, inner.outputs)


def _words() -> Any:
    """An embedding (sparse gradients) and a layer that no loss reaches (gradients None)."""
    import keras

    inputs = keras.Input((8,))
    words = keras.ops.cast(keras.ops.clip(keras.ops.abs(inputs) * 8, 0, 31), "int32")
    table = keras.layers.Embedding(32, 4, embeddings_initializer=keras.initializers.RandomUniform(seed=1))
    flat = keras.layers.Flatten()(table(words))
    outputs = keras.layers.Dense(3, "softmax", kernel_initializer=keras.initializers.HeNormal(seed=2))(flat)
    model = keras.Model(inputs, outputs)
    model.unused = keras.layers.Dense(2, kernel_initializer="ones")
    model.unused.build((None, 4))
    return model


def optimizer_names(rank: Rank) -> tuple[set[str], set[str]]:
    """Optimizers that Keras has, and those among the cases."""
    import keras

    kinds = {
        name
        for name, kind in vars(keras.optimizers).items()
        if isinstance(kind, type) and issubclass(kind, keras.optimizers.Optimizer)
    }
    return kinds - {"Optimizer"}, set(optimizers())


class _Callbacks:
    """Makers of callbacks that differ between ranks, by name."""

    @staticmethod
    def stop_on_rank_1_within(rank: Rank) -> Any:
        import keras

        class Stop(keras.callbacks.Callback):  # type: ignore[misc]
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                if rank.rank == 1 and batch == 4:
                    self.model.stop_training = True

        return Stop()

    @staticmethod
    def disturb_rank_1(rank: Rank) -> Any:
        import keras

        class Disturb(keras.callbacks.Callback):  # type: ignore[misc]
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                if rank.rank == 1 and batch == 4:
                    kernel = self.model.trainable_variables[0]
                    kernel.assign_add(np.full(kernel.shape, 1e-6, "float32"))

        return Disturb()


def fit_with(rank: Rank, train: Dataset, maker: str, options: dict[str, Any]) -> tuple[Any, str]:
    """The history of a fit with a callback that differs between ranks, or its error."""
    try:
        model = network(8, 3, plain=True)
        callback = getattr(_Callbacks, maker)(rank)
        history = rank.fit(model, train, batch_rows=32, epochs=3, callbacks=[callback], **options)
    except DesyncError as error:
        return None, str(error)
    return history, ""


def stopped_at(rank: Rank, train: Dataset, validation: Dataset, options: dict[str, Any]) -> str:
    """The error that ends a regression with numbers that are none, caught on each rank."""
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), loss="mse")
    fixed = {"batch_rows": 64, "epochs": 2, "shuffle": False}
    try:
        rank.fit(model, train, validation=validation, **fixed, **options)
    except DivergedError as error:
        return str(error)
    return "it went on"


def moving_statistics(rank: Rank, train: Dataset) -> list[list[Any]]:
    """Moving mean and variance of the features after a fit: of all ranks together, and of this one alone on
    all rows."""
    import keras

    both = []
    for world in (rank, alone(rank)):
        layer = keras.layers.BatchNormalization(momentum=0.5)
        model = keras.Sequential([keras.Input((8,)), layer, keras.layers.Dense(3, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        world.fit(model, train, batch_rows=256, epochs=6, shuffle=False)
        both.append([layer.moving_mean.numpy(), layer.moving_variance.numpy()])
    return both


def decide_alike(rank: Rank, train: Dataset, validation: Dataset, folder: str) -> dict[str, Any]:
    """Keras' own callbacks, which decide by what they see at the end of epochs."""
    import keras

    seen: list[dict[str, float]] = []
    rates: list[float] = []
    model = network(8, 3, plain=False)
    model.compile(
        keras.optimizers.SGD(0.05),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
    )
    history = rank.fit(
        model,
        train,
        validation=validation,
        batch_rows=64,
        epochs=8,
        verbose=2,
        callbacks=[
            keras.callbacks.ReduceLROnPlateau(monitor="val_loss", min_delta=10.0, patience=2, factor=0.5),
            keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=10.0, patience=5),
            keras.callbacks.ModelCheckpoint(
                f"{folder}/rank-{rank.rank}-{{epoch}}.weights.h5", save_weights_only=True
            ),
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: seen.append(dict(logs)),
                on_epoch_begin=lambda epoch, logs: rates.append(float(model.optimizer.learning_rate)),
            ),
        ],
    )
    return {"epochs": history.epochs, "seen": seen, "rates": rates, "metrics": history.metrics}


def rates_of(rank: Rank, train: Dataset, warmup_epochs: int) -> list[float]:
    import keras

    rates: list[float] = []
    model = network(8, 3, plain=True, rate=0.01)
    note = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: rates.append(float(model.optimizer.learning_rate))
    )
    rank.fit(model, train, batch_rows=64, epochs=4, warmup_epochs=warmup_epochs, callbacks=[note])
    return rates


def refused(rank: Rank, train: Dataset, options: dict[str, Any]) -> str:
    """The error of arguments that a fit does not take."""
    import keras

    special = {"backup": lambda: keras.callbacks.BackupAndRestore("x"), "text": lambda: "no callback"}
    if "callbacks" in options:
        options["callbacks"] = [special[options["callbacks"]]()]
    model = network(8, 3, plain=True)
    if options.pop("schedule", False):
        model.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)), loss="mse")
    try:
        rank.fit(model, train, **{"batch_rows": 64, "epochs": 1, **options})
    except PlatformError as error:
        return str(error)
    return "it was taken"


def global_metrics(rank: Rank, dataset: Dataset) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics that are no means of rows, over all ranks and on this one alone."""
    import keras

    class Largest(keras.metrics.Metric):  # type: ignore[misc]
        """Its state is no sum."""

        def __init__(self) -> None:
            super().__init__(name="largest")
            self.value = self.add_variable((), "zeros")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.value.assign(keras.ops.maximum(self.value, keras.ops.max(y_pred)))

        def result(self) -> Any:
            return self.value

    values = []
    for world in (rank, alone(rank)):
        model = network(8, 1, plain=True)
        model.compile(
            "sgd",
            loss="binary_crossentropy",
            metrics=[keras.metrics.AUC(name="auc"), keras.metrics.Precision(name="precision"), Largest()],
        )
        values.append(world.evaluate(model, dataset))
    return values[0], values[1]


def regress(rank: Rank, folder: str) -> tuple[list[Any], list[Any], list[float]]:
    """Values to regress on, from columns of anyone's Parquet with weights: on all ranks, and alone."""
    import keras

    both, losses = [], []
    table = {"features": ["a", "b"], "label": "price", "weight": "w"}
    for world in (rank, alone(rank)):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
        model.compile(keras.optimizers.SGD(0.1), loss="mse", weighted_metrics=["mae"])
        history = world.fit(
            model, folder, validation=folder, batch_rows=32, epochs=12, seed=1, steps_per_epoch=9, **table
        )
        both.append(weights_of(model))
        losses += [history.metrics["val_loss"][-1], world.evaluate(model, folder, **table)["loss"]]
        assert world.predict(model, folder, features=["a", "b"]).shape[1] == 1
    return both[0], both[1], losses


def evaluate_few(rank: Rank, dataset: Dataset) -> tuple[dict[str, float], tuple[int, ...]]:
    """Fewer rows than ranks: one of them has none."""
    model = network(8, 3, plain=True)
    return rank.evaluate(model, dataset), rank.predict(model, dataset).shape
