"""The page about images does what it says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.images.pictures import encoded, gradient

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PAGE = (Path(__file__).parents[2] / "docs" / "images.md").read_text()

pytestmark = [pytest.mark.spark, pytest.mark.horovod]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    module = tmp_path_factory.mktemp("page") / "images_page.py"
    module.write_text("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)))
    return runpy.run_path(str(module))


@pytest.mark.long
def test_images_become_vectors_by_a_stage_and_by_sql(
    page: dict[str, Any], spark: SparkSession, tmp_path: Path
) -> None:
    import keras

    from ml_platform import ImageSpec, read_images

    keras.utils.set_random_seed(1)
    network = str(tmp_path / "net.keras")
    layers = [keras.Input((96, 96, 3)), keras.layers.Conv2D(2, 48, strides=48)]
    keras.Sequential(layers).save(network)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.png").write_bytes(encoded(gradient()))
    (photos / "none.png").write_bytes(b"no image")
    (row,) = page["embed"](spark, str(photos), network).collect()
    assert len(row.features) == 2
    images = read_images(spark, str(photos), ImageSpec(size=(96, 96))).where("error IS NULL")
    images.createOrReplaceTempView("images")
    (vector,) = page["as_vectors"](spark, network).collect()
    assert len(vector.vector) == 2 * 2 * 2
