"""Networks that learn from images themselves, on two ranks: augmented, and equal to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ml_platform.images.features import apply_images, as_pixels, fit_images
from ml_platform.images.load import load_images
from ml_platform.inference.raw_model import load_raw_model, write_raw_model
from ml_platform.specs.images import BackboneSpec, ImageState
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import SplitSpec
from ml_platform.specs.training import AugmentSpec, FineTuneSpec
from ml_platform.store.datasets import read_table
from ml_platform.store.folders import local_path
from ml_platform.training.image_network import ImageNetwork, build_image_network, unfreeze
from tasks import loops
from tests.gangs import warm_pair
from tests.images.pictures import encoded

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.horovod, pytest.mark.slow]

SHAPES = ("disc", "ring", "square")


@pytest.fixture(scope="module")
def images(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """150 drawings of three shapes in many places and sizes."""
    from PIL import Image, ImageDraw

    root = tmp_path_factory.mktemp("drawings")
    for at in range(150):
        shape = SHAPES[at % 3]
        picture = Image.new("RGB", (32, 32), (at % 50, 20, 60))
        left, top, side = 2 + at % 5, 2 + at % 4, 18 + at % 7
        box, pen = (left, top, left + side, top + side), ImageDraw.Draw(picture)
        if shape == "square":
            pen.rectangle(box, fill=(200, 150 + at % 90, 90))
        else:
            pen.ellipse(box, fill=(200, 150, 90) if shape == "disc" else None, outline="white", width=3)
        path = root / shape / f"{at}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(picture))
    return load_images(spark, str(root)).data


@pytest.fixture(scope="module")
def small(images: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ImageState:
    """The state of a backbone of two convolutions."""
    import keras

    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((16, 16, 3)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(8, 3, activation="relu", name="first"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Conv2D(8, 3, activation="relu", name="last"),
    ]
    path = tmp_path_factory.mktemp("backbone") / "small.keras"
    keras.Sequential(layers).save(path)
    return fit_images(images, BackboneSpec(name=str(path), pooling="flat"))


@pytest.mark.long
def test_a_network_from_scratch_learns_from_encoded_images(
    spark: SparkSession, images: Dataset, tmp_path: Path
) -> None:
    """Two ranks end with equal bytes; the model takes files' contents and knows nothing of augmentation."""
    state = fit_images(images, BackboneSpec())
    assert as_pixels(state) == state
    pixels = apply_images(spark, images, state)
    spec = FineTuneSpec(filters=(8,), epochs=25, rate=1e-2)
    network = ImageNetwork(state.vector.size, state.outputs, None)
    fitted = warm_pair().run(loops.fit_images, pixels, pixels, spec, network).rank0
    assert fitted.proof["ranks"] == 2
    table = read_table(images)
    model = load_raw_model(_folder(tmp_path, fitted.model, state, images))
    predicted = model.predict(table)
    labels = np.array(table.column("label").to_pylist())
    assert (np.array(state.classes)[predicted.argmax(axis=1)] == labels).mean() > 0.9
    np.testing.assert_array_equal(predicted, model.predict(table))


@pytest.mark.long
def test_the_last_layers_of_a_backbone_learn_and_the_others_stay(
    spark: SparkSession, images: Dataset, small: ImageState, tmp_path: Path
) -> None:
    """And so do the statistics of its batch normalisation, whatever the images of the training are like."""
    state = as_pixels(small)
    assert state.vector.size == (16, 16)
    pixels = apply_images(spark, images, state)
    content = local_path(small.backbone).read_bytes()
    spec = FineTuneSpec(unfrozen=1, head_epochs=2, epochs=3, fine_rate=1e-3)
    network = ImageNetwork(state.vector.size, state.outputs, content)
    fitted = warm_pair().run(loops.fit_images, pixels, pixels, spec, network).rank0
    assert fitted.proof["ranks"] == 2
    assert len(fitted.history["loss"]) == 5
    before, after = _weights(build_image_network(network, spec)), _weights(_opened(fitted.model, tmp_path))
    changed = {
        name
        for name, weights in before.items()
        if not all(np.array_equal(*pair) for pair in zip(weights, after[name], strict=True))
    }
    assert changed == {"last", "logits"}
    model = load_raw_model(_folder(tmp_path, fitted.model, state, images))
    assert model.predict(read_table(images)).shape == (150, 3)


def test_images_are_varied_while_a_network_trains_alone(small: ImageState) -> None:
    """By the seed: the same varied images for the same seed, others for another."""
    content = local_path(small.backbone).read_bytes()
    network = ImageNetwork((16, 16), 3, content)
    images = np.random.default_rng(0).random((4, 16 * 16 * 3)).astype(np.float32)

    def seen(training: bool, **augment: Any) -> Any:
        spec = FineTuneSpec(dropout=0, augment=AugmentSpec(flip="both", **augment), seed=3)
        return np.asarray(build_image_network(network, spec)(images, training=training))

    np.testing.assert_array_equal(seen(False), seen(False, rotation=0.5))
    np.testing.assert_array_equal(seen(True), seen(True))
    assert not np.allclose(seen(True), seen(False), atol=1e-4)


def test_all_but_batch_normalisation_can_learn(small: ImageState) -> None:
    content = local_path(small.backbone).read_bytes()
    model = build_image_network(ImageNetwork((16, 16), 3, content), FineTuneSpec())
    assert {path.split("/")[0] for path in _learning(model)} == {"logits"}
    assert unfreeze(model, 99) == ["first", "last"]
    assert {path.split("/")[0] for path in _learning(model)} == {"first", "last", "logits"}


def _learning(model: Any) -> list[str]:
    return [weight.path for weight in model.trainable_weights]


def _weights(model: Any) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for weight in model.weights:
        found.setdefault(weight.path.split("/")[-2], []).append(weight.numpy())
    return found


def _opened(content: bytes, folder: Path) -> Any:
    import keras

    (folder / "opened.keras").write_bytes(content)
    return keras.saving.load_model(folder / "opened.keras", compile=False)


def _folder(folder: Path, model: bytes, state: ImageState, images: Dataset) -> Path:
    (folder / "model.keras").write_bytes(model)
    return write_raw_model(
        folder / "raw",
        family="fine_tuned",
        model_file=folder / "model.keras",
        state=state,
        split=SplitSpec(),
        contract=images.contract,
        lineage={},
    )
