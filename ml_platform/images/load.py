"""Images into the store: files, labels and digests as a data set; what is no image goes to quarantine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.errors import DataError
from ml_platform.images.files import ImageFile, list_images
from ml_platform.images.read import decode_column, listed, pieces, read_and_check
from ml_platform.specs.images import ImageSpec
from ml_platform.specs.references import Dataset, Table
from ml_platform.store.datasets import read_table, removed_on_failure, spark_frame, write_dataset

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

QUARANTINE_LIMIT = 0.05
WORST = 10


def load_images(spark: SparkSession, source: str, spec: ImageSpec = ImageSpec()) -> Table:
    """Read image files into the store. Each one is decoded once, to know that it can be; bad ones twice.

    Returns:
        A table whose data set has `path`, `label` (the folder that holds the file), `digest`, `height`,
        `width` (pixels, upright) and `content` (the file as it is). Files that are no images are in its
        quarantine with `path`, `digest` and `error`.
    Raises:
        DataError: Nothing is there, or more than 5 % of the files are no images.
    """
    files = list_images(source)
    total = len(files)

    def read(some: list[ImageFile]) -> DataFrame:
        return listed(spark, some).mapInArrow(_Loader(spec), _Loader.schema)

    with removed_on_failure() as written:
        data = write_dataset(read(files).where("error IS NULL").drop("error"), name="images", label="label")
        written.append(data)
        if data.rows == total:
            return Table(data=data, quarantined=0, quarantine=None, source=source)
        good = set(read_table(data, ["path"]).column("path").to_pylist())
        others = read([file for file in files if file.path not in good]).where("error IS NOT NULL")
        quarantine = write_dataset(others.select("path", "digest", "error"), name="quarantine")
        written.append(quarantine)
        if data.rows + quarantine.rows != total or quarantine.rows > QUARANTINE_LIMIT * total:
            worst = spark_frame(spark, quarantine).orderBy("path").limit(WORST).collect()
            raise DataError(
                f"{source}: too many files are no images",
                wanted=f"at most {QUARANTINE_LIMIT:.0%} of {total} files",
                got=f"{quarantine.rows} files",
                evidence="\n".join(f"{row.path}: {row.error}" for row in worst),
                hint="remove them, or name a glob that leaves them out",
            )
    return Table(data=data, quarantined=quarantine.rows, quarantine=quarantine, source=source)


def image_frame(spark: SparkSession, images: Dataset, spec: ImageSpec = ImageSpec()) -> DataFrame:
    """A data set of images, decoded.

    Returns:
        `path`, `label`, `image` (Spark's image struct), `digest`, `error`.
    """
    frame = spark_frame(spark, images).select("path", "label", "content")
    return decode_column(frame, "content", spec).drop("content")


@dataclass(frozen=True)
class _Loader:
    """What runs on executors."""

    spec: ImageSpec

    schema = "path string, label string, digest string, height int, width int, content binary, error string"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            for piece in pieces(batch):
                found = [read_and_check(uri, self.spec) for uri in piece.column("uri").to_pylist()]
                columns = {
                    "path": piece.column("path"),
                    "label": piece.column("label"),
                    "digest": pa.array([row.digest for row in found], pa.string()),
                    "height": pa.array([row.height for row in found], pa.int32()),
                    "width": pa.array([row.width for row in found], pa.int32()),
                    "content": pa.array([row.content for row in found], pa.binary()),
                    "error": pa.array([row.error for row in found], pa.string()),
                }
                yield pa.RecordBatch.from_pydict(columns)
