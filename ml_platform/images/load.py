"""Images into the store: pixels, labels and digests as a data set; what is no image goes to quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_platform.errors import DataError
from ml_platform.images.decode import ImageSpec
from ml_platform.images.read import read_images
from ml_platform.images.schema import FIELDS
from ml_platform.specs.references import Dataset, Table
from ml_platform.store.datasets import remove_dataset, spark_frame, write_dataset

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

QUARANTINE_LIMIT = 0.05
WORST = 10


def load_images(spark: SparkSession, source: str, spec: ImageSpec = ImageSpec()) -> Table:
    """Read images into the store.

    Returns:
        A table whose data set has `path`, `label`, `digest`, and the image struct's fields as columns. Files
        that are no images are in its quarantine with `path`, `digest` and `error`.
    Raises:
        DataError: Nothing is there, or more than 5 % of the files are no images.
    """
    read = read_images(spark, source, spec)
    image = [f"image.{name}" for name in FIELDS if name != "origin"]
    good = read.where("error IS NULL").select("path", "label", "digest", *image)
    data = write_dataset(good, name="images", label="label")
    total = read.count()
    if data.rows == total:
        return Table(data=data, quarantined=0, quarantine=None, source=source)
    quarantine = write_dataset(
        read.where("error IS NOT NULL").select("path", "digest", "error"), name="quarantine"
    )
    if data.rows + quarantine.rows != total or quarantine.rows > QUARANTINE_LIMIT * total:
        worst = spark_frame(spark, quarantine).orderBy("path").limit(WORST).collect()
        for written in (data, quarantine):
            remove_dataset(written)
        raise DataError(
            f"{source}: too many files are no images",
            wanted=f"at most {QUARANTINE_LIMIT:.0%} of {total} files",
            got=f"{quarantine.rows} files",
            evidence="\n".join(f"{row.path}: {row.error}" for row in worst),
            hint="remove them, or name a glob that leaves them out",
        )
    return Table(data=data, quarantined=quarantine.rows, quarantine=quarantine, source=source)


def image_frame(spark: SparkSession, images: Dataset) -> DataFrame:
    """A data set of images, with Spark's image struct in one column.

    Returns:
        `path`, `label`, `digest`, `image`. The image's origin is its path.
    """
    import pyspark.sql.functions as sf

    frame = spark_frame(spark, images)
    fields = [sf.col("path").alias("origin"), *(sf.col(name) for name in FIELDS if name != "origin")]
    return frame.select("path", "label", "digest", sf.struct(*fields).alias("image"))
