"""Networks that learn from the pixels of images: varied while they train, as they are ever after."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.specs.training import AugmentSpec, FineTuneSpec

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class ImageNetwork:
    """What a network starts from."""

    size: tuple[int, int]
    """Height and width of the images."""
    outputs: int
    """Classes."""
    backbone: bytes | None = field(repr=False)
    """A Keras file that turns R G B pixels from 0 to 255 into a vector. None: a network from scratch."""


def build_image_network(network: ImageNetwork, spec: FineTuneSpec) -> keras.Model:
    """A network, not compiled; layers of a backbone do not learn yet.

    Initial weights depend on `spec.seed` alone, so that every rank builds the same ones.

    Input shape:
        (rows, height × width × 3), float32: pixels from 0 to 1, row by row, R G B.
    Output shape:
        (rows, outputs), float32: probabilities.
    """
    import keras

    height, width = network.size
    inputs = keras.Input((height * width * 3,), name="features")
    images = keras.layers.Reshape((height, width, 3))(inputs)
    for layer in augmentation(spec.augment, spec.seed):
        images = layer(images)
    if network.backbone is None:
        vector = _convolutions(images, spec)
    else:
        backbone = _opened(network.backbone)
        # Statistics of its batch normalisation stay those that it was made with.
        vector = backbone(keras.layers.Rescaling(255.0)(images), training=False)
    if spec.dropout:
        vector = keras.layers.Dropout(spec.dropout)(vector)
    start = keras.initializers.GlorotUniform(seed=spec.seed)
    logits = keras.layers.Dense(network.outputs, kernel_initializer=start, name="logits")(vector)
    return keras.Model(inputs, keras.layers.Softmax(name="probabilities")(logits), name="images")


def augmentation(spec: AugmentSpec, seed: int) -> list[Any]:
    """Layers that vary images while a network trains, and do nothing otherwise. Each has its own seed."""
    from keras import layers

    found: list[Any] = []
    if spec.flip != "none":
        mode = "horizontal_and_vertical" if spec.flip == "both" else spec.flip
        found.append(layers.RandomFlip(mode, seed=seed + 1))
    if spec.rotation:
        found.append(layers.RandomRotation(spec.rotation, fill_mode="nearest", seed=seed + 2))
    if spec.zoom:
        found.append(layers.RandomZoom(spec.zoom, fill_mode="nearest", seed=seed + 3))
    if spec.translation:
        shift = spec.translation
        found.append(layers.RandomTranslation(shift, shift, fill_mode="nearest", seed=seed + 4))
    return found


def unfreeze(model: keras.Model, layers: int) -> list[str]:
    """Let the last layers of the backbone learn, but for batch normalisation. Compile the model afterwards.

    Args:
        layers: How many of those that have weights.
    Returns:
        Their names.
    """
    import keras

    backbone = next(layer for layer in model.layers if hasattr(layer, "layers"))
    backbone.trainable = True
    able = [
        layer
        for layer in _leaves(backbone)
        if layer.weights and not isinstance(layer, keras.layers.BatchNormalization)
    ]
    chosen = able[len(able) - layers :] if layers < len(able) else able
    for layer in _leaves(backbone):
        layer.trainable = layer in chosen
    return [layer.name for layer in chosen]


def _convolutions(images: Any, spec: FineTuneSpec) -> Any:
    from keras import initializers, layers

    for number, filters in enumerate(spec.filters, 10):
        start = initializers.HeUniform(seed=spec.seed + number)
        images = layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer=start)(
            images
        )
        images = layers.MaxPooling2D(padding="same")(images)
    return layers.Flatten()(images)


def _opened(content: bytes) -> keras.Model:
    import keras

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "backbone.keras")
        file.write_bytes(content)
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
    model.trainable = False
    return model


def _leaves(model: Any) -> Iterator[Any]:
    """Layers of a model and of the models in it."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer)
        else:
            yield layer
