"""Load images, turn them into features, and show what a model makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_platform import BackboneSpec, Dataset, ImageSpec, ImageState, Spark, SplitSpec, Table, task
from ml_platform.images import features, load
from ml_platform.images.backbone import backbone_identity
from ml_platform.images.files import images_identity, list_images
from ml_platform.images.samples import image_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def check_images(source: str) -> None:
    """Before anything starts: are there files?"""
    list_images(image_folder(source))


def probe_images(source: str) -> str:
    """The files' names and contents decide, not where they lie."""
    return images_identity(image_folder(source))


@task(preflight=check_images, probe=probe_images)
def load_images(source: str, spec: ImageSpec = ImageSpec(), spark: SparkSession = Spark()) -> Table:
    """Read images into the store, in folders named after their classes; what is none goes to quarantine."""
    return load.load_images(spark, image_folder(source), spec)


def by_content(split: SplitSpec) -> SplitSpec:
    """Copies of one image lie in the same part, unless the split says otherwise."""
    given = split.group or split.key_columns
    return split if given else split.model_copy(update={"key_columns": ("digest",)})


def probe_backbone(spec: BackboneSpec) -> dict[str, str]:
    """Local files count by their content."""
    return backbone_identity(spec)


@task(probe=probe_backbone)
def fit_images(train: Dataset, spec: BackboneSpec) -> ImageState:
    """The classes of the training part, and the network that turns images into features."""
    return features.fit_images(train, spec)


@task
def apply_images(part: Dataset, state: ImageState, spark: SparkSession = Spark()) -> Dataset:
    """Encoded images to packed float32 features and class indices."""
    return features.apply_images(spark, part, state)
