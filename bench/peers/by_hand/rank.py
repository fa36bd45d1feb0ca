"""Horovod as one writes it by hand: rows in memory, a traced step, `DistributedGradientTape`.

As its documentation on TensorFlow has it, with a Keras 3 model. Without `reduce` each rank trains
for itself, and waits for nobody.
"""

import json
import sys
import time
from pathlib import Path

import horovod.tensorflow as hvd
import keras
import network
import numpy as np
import tensorflow as tf
from pyarrow import parquet

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(2)
hvd.init()
folder, answers, batch, steps, epochs = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6])
reduce = "reduce" in sys.argv

table = parquet.read_table(folder / "part.parquet")
rows = slice(hvd.rank() * batch * steps, (hvd.rank() + 1) * batch * steps)
packed = b"".join(table.column("features").to_pylist()[rows])
features = np.frombuffer(packed, np.float32).reshape(steps, batch, network.WIDTH)
labels = table.column("label").to_numpy()[rows].reshape(steps, batch)
data = tf.data.Dataset.from_tensor_slices((features, labels)).prefetch(2)

model, loss, optimizer = network.build(), network.loss(), keras.optimizers.SGD()
optimizer.build(model.trainable_variables)


@tf.function
def step(x, y):
    with tf.GradientTape() as tape:
        value = loss(y, model(x, training=True))
    tape = hvd.DistributedGradientTape(tape) if reduce else tape
    # Of TensorFlow's own variables: Horovod's tape cannot take those of Keras 3.
    gradients = tape.gradient(value, [variable.value for variable in model.trainable_variables])
    optimizer.apply(gradients, model.trainable_variables)
    return value


if reduce:
    for variable in model.variables:  # Keras 3 variables: hvd.broadcast_variables cannot take them
        variable.assign(hvd.broadcast(variable.value, 0))
seconds = 0.0
for epoch in range(epochs):
    began = time.perf_counter()
    for x, y in data:
        value = step(x, y)
    float(value)
    seconds += time.perf_counter() - began if epoch else 0.0
(answers / str(hvd.rank())).write_text(json.dumps([network.fingerprint(model), seconds]))
