"""Trees on the features of a network: task by task, from files to a model that reads files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ml_platform.inference.raw_model import load_raw_model
from ml_platform.specs.images import BackboneSpec
from ml_platform.specs.tables import SplitSpec
from ml_platform.specs.tracking import TrackingRun
from ml_platform.specs.training import XGBoostSpec
from ml_platform.store.datasets import read_table
from ml_platform.tracking.fetching import fetch
from tasks.data import find_problem, split_table
from tasks.evaluate import measure_model
from tasks.images import apply_images, by_content, fit_images, load_images
from tasks.train import train_xgboost
from tests.images.pictures import encoded, gradient

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.horovod, pytest.mark.long]

SIDE = 24


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images, striped across or along, of many shades: no single pixel tells them apart."""
    root = tmp_path_factory.mktemp("stripes")
    for at in range(120):
        bands = (np.arange(SIDE) + at) // 3 % 2 * 120
        shade = gradient(SIDE, SIDE, seed=at) // 3
        striped = shade + (bands[:, None, None] if at % 2 else bands[None, :, None]).astype(np.uint8)
        path = root / ("along", "across")[at % 2] / f"{at:03}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(striped))
    return root


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A user's own, with random weights."""
    import keras

    keras.utils.set_random_seed(5)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(12, 5, strides=2, activation="relu")(x)
    path = tmp_path_factory.mktemp("network") / "mine.keras"
    keras.Model(inputs, x).save(path)
    return str(path)


def test_files_become_a_logged_model_that_scores_files(
    spark: SparkSession, run: TrackingRun, stripes: Path, network: str
) -> None:
    split = by_content(SplitSpec())
    images = load_images.function(str(stripes), spark=spark)
    parts = split_table.function(images.data, split, find_problem.function(images, "auto"), spark=spark)
    state = fit_images.function(parts.train, BackboneSpec(name=network))
    features = [apply_images.function(part, state, spark=spark) for part in (parts.train, parts.validation)]
    spec = XGBoostSpec(trees=20, depth=3)
    model = train_xgboost.function(*features, state, parts, split, spec, spark=spark, run=run)
    assert (state.width, model.family, model.classes) == (12, "xgboost", ("across", "along"))

    held_out = measure_model.function(model, parts.holdout, "holdout", spark=spark, run=run)
    assert held_out.metrics["accuracy"].value > 0.9
    table = read_table(parts.holdout)
    right = np.array(table.column("label").to_pylist())
    alone = load_raw_model(fetch(model)).predict(table)
    assert (np.array(model.classes)[alone.argmax(axis=1)] == right).mean() == pytest.approx(
        held_out.metrics["accuracy"].value
    )
