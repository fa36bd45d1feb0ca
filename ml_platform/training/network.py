"""Dense Keras networks. Built in ranks: Keras is imported inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ml_platform.specs.problems import ProblemKind
from ml_platform.specs.training import KerasSpec

if TYPE_CHECKING:
    import keras


LOSSES: Mapping[ProblemKind, str] = {
    "binary": "sparse_categorical_crossentropy",
    "multiclass": "sparse_categorical_crossentropy",
    "regression": "mean_squared_error",
}
METRICS: Mapping[ProblemKind, Sequence[str]] = {
    "binary": ("accuracy",),
    "multiclass": ("accuracy",),
    "regression": ("mean_absolute_error",),
}


def build_network(
    width: int, outputs: int, spec: KerasSpec, problem: ProblemKind = "multiclass"
) -> keras.Model:
    """A network of dense layers, not compiled.

    Initial weights depend on `spec.seed` alone, so that every rank builds the same ones.

    Input shape:
        (rows, width), float32.
    Output shape:
        (rows, outputs), float32: probabilities, or the standardised number.

    Args:
        width: Features per row.
        outputs: Classes, at least 2; or 1 number.
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
    if problem == "regression":
        layers.append(keras.layers.Dense(outputs, kernel_initializer=start, name="number"))
    else:
        layers.append(keras.layers.Dense(outputs, kernel_initializer=start, name="logits"))
        layers.append(keras.layers.Softmax(name="probabilities"))
    return keras.Sequential(layers, name="network")
