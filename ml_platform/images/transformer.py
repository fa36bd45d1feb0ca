"""Featurising images as a stage of a `pyspark.ml` Pipeline: saved and loaded with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark import keyword_only
from pyspark.ml import Transformer
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasInputCol, HasOutputCol
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable

from ml_platform.images.featurise import ship_backbone
from ml_platform.specs.images import BackboneSpec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class ImageFeaturizer(
    Transformer,
    HasInputCol,
    HasOutputCol,
    DefaultParamsReadable["ImageFeaturizer"],
    DefaultParamsWritable,
):
    """Features of the images in a column, as the dense vectors that `pyspark.ml` learns from.

    Names and semantics are those of the DeepImageFeaturizer of Deep Learning Pipelines, whose vectors are the
    last map before the top, not pooled: `pooling="flat"`.

    Args:
        inputCol: Column of image structs. A null image gives a null vector.
        outputCol: Column of vectors.
        modelName: An application of Keras, or a `.keras` file.
        weights: `imagenet`, a file, a URL, or `none`.
        layers: Layers to take. Empty: the last one before the top.
        pooling: `avg`, `max` or `flat`.
        size: Height and width of the input. Empty: what the network was made for.
    """

    modelName = Param(Params._dummy(), "modelName", "network", TypeConverters.toString)  # noqa: N815
    weights = Param(Params._dummy(), "weights", "weights of the network", TypeConverters.toString)
    layers = Param(Params._dummy(), "layers", "layers to take", TypeConverters.toListString)
    pooling = Param(Params._dummy(), "pooling", "avg, max or flat", TypeConverters.toString)
    size = Param(Params._dummy(), "size", "height and width", TypeConverters.toListInt)

    @keyword_only
    def __init__(
        self,
        *,
        inputCol: str = "image",  # noqa: N803  (names of pyspark.ml)
        outputCol: str = "features",  # noqa: N803
        modelName: str | None = None,  # noqa: N803
        weights: str | None = None,
        layers: list[str] | None = None,
        pooling: str | None = None,
        size: list[int] | None = None,
    ) -> None:
        super().__init__()
        given: dict[str, Any] = self._input_kwargs  # type: ignore[attr-defined]  # of `keyword_only`
        plain = BackboneSpec()
        self._setDefault(
            inputCol="image",
            outputCol="features",
            modelName=plain.name,
            weights=plain.weights,
            layers=[],
            pooling=plain.pooling,
            size=[],
        )
        self._set(**given)

    @property
    def spec(self) -> BackboneSpec:
        """Its parameters as a value; raises pydantic's ValidationError where they make no sense."""
        values: dict[str, Any] = {
            name: self.getOrDefault(name) for name in ("weights", "layers", "pooling", "size")
        }
        return BackboneSpec(
            name=self.getOrDefault("modelName"), **{**values, "size": tuple(values["size"]) or None}
        )

    def _transform(self, dataset: DataFrame) -> DataFrame:
        import pyspark.sql.functions as sf
        from pyspark.ml.functions import array_to_vector

        backbone = ship_backbone(dataset.sparkSession, self.spec)
        features = dataset.withColumn(self.getOutputCol(), backbone.column(dataset[self.getInputCol()]))
        found = features[self.getOutputCol()]
        # The conversion fails at a null.
        return features.withColumn(self.getOutputCol(), sf.when(found.isNotNull(), array_to_vector(found)))
