"""Keras models of images as functions of SQL: vectors, why an image has none, and which network answers."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark import TaskContext
from pyspark.accumulators import AccumulatorParam

from ml_platform.errors import SpecError, one_line
from ml_platform.images.featurise import Backbone, Preprocess, image_structs, network_input, ship_backbone
from ml_platform.resources.process_wide import heard
from ml_platform.resources.spark_daemon import TENSORFLOW, forked_with
from ml_platform.specs.images import BackboneSpec, Features

if TYPE_CHECKING:
    import keras
    import pyarrow as pa
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)


def register_keras_image_udf(
    spark: SparkSession, name: str, model: str | keras.Model, preprocessor: Preprocess | None = None
) -> Backbone:
    """Make a Keras model of images a function of this session's SQL: image structs to a flat array of floats.

        register_keras_image_udf(spark, "embed", "net.keras", preprocessor=lambda rgb: rgb / 255)
        spark.sql("SELECT embed(image), embed__digest() FROM photos")
        spark.sql("SELECT path, embed__error(image) FROM photos WHERE embed(image) IS NULL")

    An image that is null, that is none, or that the preprocessor refuses, gives null. `NAME__error` says why,
    and null of all others; the log says how many were refused.

    Args:
        model: A model, or a `.keras` file. The function keeps the one of now; its digest is in what is
            returned, and what the function `NAME__digest` gives.
        preprocessor: From R G B pixels to the model's input. Empty: images are resized to the model's size.
    Raises:
        SpecError: `name` is no name of a function.
        DataError: The model takes no images.
    """
    from pyspark.sql.pandas.functions import ArrowUDFType, arrow_udf

    if not name.isidentifier():
        raise SpecError(f"{name!r} is no name of a function", wanted="letters, digits and underscores")
    with tempfile.TemporaryDirectory() as folder:
        file = model if isinstance(model, str) else str(Path(folder, "model.keras"))
        if not isinstance(model, str):
            model.save(file)
        backbone = ship_backbone(spark, BackboneSpec(name=file, pooling="flat"))
    refused = spark.sparkContext.accumulator(0, _Told(name))
    why = _Why(f"{name}__error", backbone.features, preprocessor)
    with heard(), forked_with(TENSORFLOW):
        spark.udf.register(name, backbone.function(preprocessor, refused, name))
        spark.udf.register(f"{name}__error", arrow_udf(why, "string", ArrowUDFType.SCALAR_ITER))
    signature = f"`{name}__digest`() RETURNS STRING"
    spark.sql(f"CREATE OR REPLACE TEMPORARY FUNCTION {signature} RETURN '{backbone.digest}'")
    return backbone


@dataclass(frozen=True)
class _Why:
    """What runs on executors: image structs in, why the network does not take them out."""

    name: str
    features: Features
    preprocess: Preprocess | None

    def __call__(self, batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        import pyarrow as pa

        for batch in batches:
            structs = image_structs(batch, self.name)
            yield pa.array([self._why(struct) for struct in structs], pa.string())

    def _why(self, struct: pa.StructScalar) -> str | None:
        if not struct.is_valid:
            return "no image (null)"
        try:
            network_input(struct, self.features, self.preprocess)
        except Exception as error:  # noqa: BLE001  (whatever a person's code raises)
            return one_line(error)
        return None


class _Told(AccumulatorParam[int]):
    """A count of images that workers refuse. The driver hears of it after each Spark task, and says so."""

    def __init__(self, name: str) -> None:
        self._name = name

    def zero(self, value: int) -> int:
        return 0

    def addInPlace(self, value1: int, value2: int) -> int:  # noqa: N802  (name of pyspark)
        total = value1 + value2
        # Each time that they are twice as many: there may be thousands of tasks.
        if TaskContext.get() is None and total.bit_length() > value1.bit_length():
            log.warning(
                "%s: %d images have no vector; %s__error(image) says why", self._name, total, self._name
            )
        return total
