"""The network that all sides train: about a million parameters."""

from __future__ import annotations

from typing import Any

WIDTH, CLASSES = 64, 10


def build() -> Any:
    import keras

    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(units, "relu") for units in (1024, 896)]
    return keras.Sequential([keras.Input((WIDTH,)), *layers, keras.layers.Dense(CLASSES)])


def loss() -> Any:
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def fingerprint(model: Any) -> float:
    """Ranks that hold the same weights have the same one."""
    return float(sum(abs(weights).sum() for weights in model.get_weights()))
