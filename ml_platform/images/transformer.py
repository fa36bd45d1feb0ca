"""Featurising images as a stage of a `pyspark.ml` Pipeline: saved and loaded with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark import keyword_only
from pyspark.ml import Transformer
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasInputCol, HasOutputCol
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReadable, MLReader, MLWritable

from ml_platform.errors import DataError
from ml_platform.images.backbone import keep_file
from ml_platform.images.featurise import ship_backbone
from ml_platform.specs.images import SUFFIX, BackboneSpec
from ml_platform.store.digests import file_digest
from ml_platform.store.leftovers import scratch_folder

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class ImageFeaturizer(
    Transformer,
    HasInputCol,
    HasOutputCol,
    MLReadable["ImageFeaturizer"],
    MLWritable,
):
    """Features of the images in a column, as the dense vectors that `pyspark.ml` learns from.

    Names and semantics are those of the DeepImageFeaturizer of Deep Learning Pipelines, whose vectors are the
    last map before the top, not pooled: `pooling="flat"`. A network or weights from a file of yours are saved
    with it, and come from there when it is loaded; what Keras or a URL gives is fetched by whoever uses it.

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

    def write(self) -> _Writer:
        """Saves it, and its files: `write().overwrite().save(path)`."""
        return _Writer(self)

    @classmethod
    def read(cls) -> _Reader:
        """Loads it: `ImageFeaturizer.load(path)`."""
        return _Reader()

    def _transform(self, dataset: DataFrame) -> DataFrame:
        import pyspark.sql.functions as sf
        from pyspark.ml.functions import array_to_vector

        backbone = ship_backbone(dataset.sparkSession, self.spec)
        features = dataset.withColumn(self.getOutputCol(), backbone.column(dataset[self.getInputCol()]))
        found = features[self.getOutputCol()]
        # The conversion fails at a null.
        return features.withColumn(self.getOutputCol(), sf.when(found.isNotNull(), array_to_vector(found)))


FILES = ("modelName", "weights")
"""Parameters that may name a file."""


class _Writer(DefaultParamsWriter):
    """Parameters as Spark writes them, and beside them the files that they name; wherever Spark writes."""

    instance: ImageFeaturizer

    def saveImpl(self, path: str) -> None:  # noqa: N802  (name of pyspark.ml)
        given = {name: Path(self.instance.getOrDefault(name)) for name in FILES}
        files = {name: file for name, file in given.items() if file.is_file()}
        if given["modelName"].suffix == SUFFIX and "modelName" not in files:
            raise DataError(f"there is no file {given['modelName']} to save with the stage")
        for name, file in files.items():
            target = _path(self.sparkSession, _beside(path, name, file.name))
            source = _path(self.sparkSession, str(file.absolute()))
            _system(self.sparkSession, target).copyFromLocalFile(source, target)
        names = {name: file.name for name, file in files.items()}
        self.saveMetadata(self.instance, path, self.sparkSession, extraMetadata={"files": names})


class _Reader(MLReader["ImageFeaturizer"]):
    """The files go to the platform's folder, under their digests."""

    def load(self, path: str) -> ImageFeaturizer:
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        stage = ImageFeaturizer()
        stage._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(stage, metadata)
        for name, file in metadata.get("files", {}).items():
            stage._set(**{name: str(self._fetched(_beside(path, name, file)))})
        return stage

    def _fetched(self, path: str) -> Path:
        source = _path(self.sparkSession, path)
        with scratch_folder() as folder:
            here = Path(folder, source.getName())
            target = _path(self.sparkSession, str(here))
            _system(self.sparkSession, source).copyToLocalFile(False, source, target, True)
            return keep_file(here, file_digest(here))


def _beside(path: str, parameter: str, name: str) -> str:
    return f"{path}/files/{parameter}/{name}"


def _path(spark: SparkSession, path: str) -> Any:
    """A path as Hadoop has it."""
    jvm: Any = spark._jvm
    return jvm.org.apache.hadoop.fs.Path(path)


def _system(spark: SparkSession, path: Any) -> Any:
    """The file system of such a path."""
    return path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf())
