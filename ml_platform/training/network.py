"""Dense Keras networks. Built in ranks: Keras is imported inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_platform.specs.training import KerasSpec

if TYPE_CHECKING:
    import keras


def build_network(width: int, classes: int, spec: KerasSpec) -> keras.Model:
    """A network of dense layers, not compiled.

    Initial weights depend on `spec.seed` alone, so that every rank builds the same ones.

    Input shape:
        (rows, width), float32.
    Output shape:
        (rows, classes), float32 probabilities.

    Args:
        width: Features per row.
        classes: Classes, at least 2.
        spec: Units of each hidden layer (with ReLU and, where asked, dropout) and the seed.
    """
    import keras

    layers: list[keras.layers.Layer] = [keras.Input((width,), name="features")]
    for number, units in enumerate(spec.hidden):
        start = keras.initializers.HeUniform(seed=spec.seed + number)
        layers.append(keras.layers.Dense(units, activation="relu", kernel_initializer=start))
        if spec.dropout:
            layers.append(keras.layers.Dropout(spec.dropout))
    start = keras.initializers.GlorotUniform(seed=spec.seed + len(spec.hidden))
    layers.append(keras.layers.Dense(classes, kernel_initializer=start, name="logits"))
    layers.append(keras.layers.Softmax(name="probabilities"))
    return keras.Sequential(layers, name="network")
