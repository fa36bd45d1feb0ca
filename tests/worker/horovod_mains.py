"""Main functions as people wrote them for HorovodRunner. A module of its own: they travel by name."""

from __future__ import annotations

from typing import Any

import numpy as np

ROWS = 64


def rows_of(rank: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """This rank's part of one small table: noise that each rank sees other rows of."""
    random = np.random.default_rng(3)
    features = random.normal(size=(ROWS, 4)).astype("float32")
    labels = (features @ np.array([1.0, -2.0, 0.5, 3.0]) + 0.3).astype("float32")
    return features[rank::size], labels[rank::size]


def network(optimizer: Any, *, seed: int | None = None, **compiled: Any) -> Any:
    import keras

    start = keras.initializers.GlorotUniform(seed=seed)
    layers = [keras.Input((4,)), keras.layers.Dense(8, "tanh", kernel_initializer=start)]
    if seed is None:
        layers.append(keras.layers.Dropout(0.1))
    layers.append(keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=seed)))
    model = keras.Sequential(layers)
    model.compile(optimizer, "mse", **compiled)
    return model


def weights(model: Any) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.trainable_variables]


def gathered(values: list[np.ndarray]) -> list[list[bytes]]:
    """Every rank's bytes, on every rank."""
    from ml_platform import current_rank

    flat = np.concatenate([value.astype("float32").ravel() for value in values])
    return [part.tobytes() for part in current_rank().collective.gather(flat)]


def plain_fit(batch_rows: int) -> list[np.ndarray]:
    """What one process computes on all rows: the measure of all others."""
    import keras

    model = network(keras.optimizers.SGD(0.05, momentum=0.9), seed=5)
    parts = [rows_of(rank, 2) for rank in range(2)]
    features, labels = (np.stack([part[i] for part in parts], 1).reshape(ROWS, -1) for i in (0, 1))
    model.fit(features, labels, batch_size=batch_rows, epochs=3, shuffle=False, verbose=0)
    return weights(model)


def tutorial(rate: float, *, seed: int | None = None, jit: bool = False) -> dict[str, Any]:
    """Step by step as the tutorial of HorovodRunner has it."""
    import horovod.tensorflow.keras as hvd
    import keras

    hvd.init()
    features, labels = rows_of(hvd.rank(), hvd.size())
    optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(rate, momentum=0.9))
    model = network(optimizer, seed=seed, jit_compile=jit)
    callbacks = [hvd.callbacks.BroadcastGlobalVariablesCallback(0), hvd.callbacks.MetricAverageCallback()]
    history = model.fit(
        features, labels, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=callbacks
    )
    return {
        "rank": hvd.rank(),
        "size": hvd.size(),
        "weights": weights(model),
        "everyone": gathered(weights(model)),
        "loss": gathered([np.array(history.history["loss"])]),
    }


def half_precision() -> list[bytes]:
    """Loss scaling under hvd.DistributedOptimizer; the labels of one rank overflow in its first step."""
    import horovod.tensorflow.keras as hvd
    import keras

    hvd.init()
    keras.config.set_dtype_policy("mixed_float16")
    features, labels = rows_of(hvd.rank(), hvd.size())
    if hvd.rank() == 1:
        labels[:8] *= 1e4
    model = network(hvd.DistributedOptimizer(keras.optimizers.SGD(0.01)))
    start = [hvd.callbacks.BroadcastGlobalVariablesCallback(0)]
    model.fit(features, labels, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=start)
    return gathered(weights(model))


def warm_up(rate: float) -> list[float]:
    import horovod.tensorflow.keras as hvd
    import keras

    hvd.init()
    features, labels = rows_of(hvd.rank(), hvd.size())
    model = network(hvd.DistributedOptimizer(keras.optimizers.SGD(rate)))
    callbacks = [
        hvd.callbacks.BroadcastGlobalVariablesCallback(0),
        hvd.callbacks.LearningRateWarmupCallback(initial_lr=rate, warmup_epochs=2, verbose=1),
        hvd.callbacks.LearningRateScheduleCallback(initial_lr=rate, multiplier=0.1, start_epoch=2),
    ]
    history = model.fit(features, labels, batch_size=8, epochs=4, verbose=0, callbacks=callbacks)
    return history.history["lr"]


def own_loop(steps: int) -> list[bytes]:
    """hvd.DistributedGradientTape and hvd.broadcast_variables on Keras's variables."""
    import horovod.tensorflow as hvd
    import keras
    import tensorflow as tf

    hvd.init()
    features, labels = rows_of(hvd.rank(), hvd.size())
    model = network(keras.optimizers.Adam(0.01))
    hvd.broadcast_variables(model.variables, root_rank=0)
    for step in range(steps):
        with tf.GradientTape() as tape:
            predicted = model(features[step * 8 : step * 8 + 8], training=True)
            loss = tf.reduce_mean((predicted[:, 0] - labels[step * 8 : step * 8 + 8]) ** 2)
        tape = hvd.DistributedGradientTape(tape)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
    return gathered(weights(model))


def continued(folder: str) -> list[bytes]:
    """A model saved by rank 0, loaded by all with hvd.load_model, goes on distributed."""
    import horovod.tensorflow.keras as hvd
    import keras

    hvd.init()
    path = f"{folder}/model.keras"
    if hvd.rank() == 0:
        network(keras.optimizers.Adam(0.01)).save(path)
    gathered([np.zeros(1)])  # a barrier: rank 0 has written
    model = hvd.load_model(path)
    features, labels = rows_of(hvd.rank(), hvd.size())
    start = [hvd.callbacks.BroadcastGlobalVariablesCallback(0)]
    model.fit(features, labels, batch_size=8, verbose=0, callbacks=start)
    return gathered(weights(model))


def forgetful(how: str) -> None:
    """Three ways to train each rank for itself, and two options that do not exist with Keras 3."""
    import horovod.tensorflow.keras as hvd
    import keras

    hvd.init()
    features, labels = rows_of(hvd.rank(), hvd.size())
    optimizer = keras.optimizers.SGD(0.1)
    callbacks = [hvd.callbacks.BroadcastGlobalVariablesCallback(0)]
    if how == "no broadcast":
        optimizer, callbacks = hvd.DistributedOptimizer(optimizer), []
    elif how == "policy set later":
        optimizer = hvd.DistributedOptimizer(optimizer)
        keras.config.set_dtype_policy("mixed_float16")
    elif how == "backward_passes_per_step":
        optimizer = hvd.DistributedOptimizer(optimizer, backward_passes_per_step=2)
    elif how == "compression":
        optimizer = hvd.DistributedOptimizer(optimizer, compression=hvd.Compression.fp16)
    network(optimizer).fit(features, labels, batch_size=8, verbose=0, callbacks=callbacks)


def talkative(lines: int) -> str:
    """Prints, logs to the driver from every rank, and by the callback."""
    import keras

    from ml_platform import LogCallback, current_rank, log_to_driver

    rank = current_rank().rank
    print(f"printed by {rank}", flush=True)
    for line in range(lines):
        log_to_driver(f"line {line} of {rank}")
    log_to_driver("x" * 5000)
    features, labels = rows_of(0, 2)
    callbacks = [LogCallback(per_batch_log=True)]
    network(keras.optimizers.SGD(0.01)).fit(
        features, labels, batch_size=16, epochs=2, verbose=0, callbacks=callbacks
    )
    return f"rank {rank}"


def unequal_loop() -> None:
    """A loop as written by hand: rank 1 has fewer steps, and rank 0 waits for it in an allreduce."""
    import horovod.tensorflow as hvd
    import tensorflow as tf

    hvd.init()
    for _ in range(2 - hvd.rank()):
        hvd.allreduce(tf.constant([1.0]), name="gradient")


def unequal_fit() -> None:
    """The same by Keras: rank 1 waits at the end of its epoch."""
    import horovod.tensorflow.keras as hvd
    import keras

    hvd.init()
    features, labels = rows_of(hvd.rank(), hvd.size())
    model = network(hvd.DistributedOptimizer(keras.optimizers.SGD(0.05)))
    rows = 32 - 16 * hvd.rank()
    callbacks = [hvd.callbacks.BroadcastGlobalVariablesCallback(0), hvd.callbacks.MetricAverageCallback()]
    model.fit(features[:rows], labels[:rows], batch_size=16, verbose=0, callbacks=callbacks)
