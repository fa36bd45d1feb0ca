"""Images in Spark: from files, from bytes and from URIs in a table, to image structs or to errors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ml_platform.errors import DataError, SpecError, nearest, one_line
from ml_platform.images.decode import decode, decoded_size
from ml_platform.images.files import ImageFile, list_images, read_bytes
from ml_platform.images.schema import arrow_type, image_struct, spark_schema
from ml_platform.specs.images import ImageSpec

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

ADDED = ("image", "digest", "error")
"""Columns that decoding adds: the image struct, SHA-256 of the file's bytes, why there is no image."""
PART_BYTES = 32 << 20
PART_FILES = 512


def read_images(spark: SparkSession, source: str, spec: ImageSpec = ImageSpec()) -> DataFrame:
    """Images below a folder, of a glob, or of one file. Lazy: files are listed now, and read by executors.

    Returns:
        `path` (below the folder that was asked for), `label` (the folder that holds the file, or null),
        `image`, `digest`, `error`. No file fails the job: what cannot be read or decoded says why in `error`.
    Raises:
        DataError: Nothing is there.
    """
    return decode_column(listed(spark, list_images(source)), "uri", spec).drop("uri")


def listed(spark: SparkSession, files: list[ImageFile]) -> DataFrame:
    """`uri`, `path` and `label` of each file, dealt evenly to all cores; the first are a sample of all."""
    import pyarrow as pa

    mixed = sorted(files, key=lambda file: hashlib.sha256(file.path.encode()).digest())
    rows = [(file.uri, file.path, file.label) for file in mixed]
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    frame = spark.createDataFrame(pa.table(columns, names=["uri", "path", "label"]))
    return frame.repartition(_parts(spark, files))


def decode_column(frame: DataFrame, column: str, spec: ImageSpec = ImageSpec()) -> DataFrame:
    """Decode a column of encoded bytes, or of URIs of files.

    Returns:
        The frame's columns, then `image`, `digest`, `error`.
    Raises:
        SpecError: No such column, or one that decoding adds is there already.
        DataError: The column holds neither bytes nor text.
    """
    from pyspark.sql import types as T  # noqa: N812

    if column not in frame.columns:
        raise SpecError(f"no column {column!r} in the table", hint=nearest(column, frame.columns))
    taken = [name for name in frame.columns if name in ADDED]
    if taken:
        raise SpecError(f"the table has a column {taken[0]!r} already", hint="rename it before")
    kind = frame.schema[column].dataType.typeName()
    if kind not in ("binary", "string"):
        raise DataError(f"column {column!r} holds no images", wanted="binary, or string (URIs)", got=kind)
    added = [
        T.StructField("image", spark_schema()),
        T.StructField("digest", T.StringType()),
        T.StructField("error", T.StringType()),
    ]
    place = frame.columns.index(column)
    return frame.mapInArrow(_Decoder(place, spec), T.StructType([*frame.schema.fields, *added]))


@dataclass(frozen=True)
class _Decoder:
    """What runs on executors."""

    place: int
    spec: ImageSpec

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for piece in pieces(batch):
                yield self._decoded(piece)

    def _decoded(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        import pyarrow as pa

        values = batch.column(self.place).to_pylist()
        rows = [read_and_decode(value, self.spec) for value in values]
        images = [
            None if row.pixels is None else image_struct(row.pixels, value if isinstance(value, str) else "")
            for row, value in zip(rows, values, strict=True)
        ]
        digests, errors = [row.digest for row in rows], [row.error for row in rows]
        texts = [pa.array(column, pa.string()) for column in (digests, errors)]
        names = [*batch.schema.names, *ADDED]
        columns = [*batch.columns, pa.array(images, arrow_type()), *texts]
        return pa.RecordBatch.from_arrays(columns, names=names)


def read_files(spark: SparkSession, source: str, most_bytes: int = ImageSpec().most_bytes) -> DataFrame:
    """Files as they are, for a model that decodes them itself. Lazy.

    Returns:
        `path`, `label`, `content`, and `unread`: why there is no content, as where the file cannot be read or
        is larger than `most_bytes`.
    Raises:
        DataError: Nothing is there.
    """
    return files_frame(spark, list_images(source), most_bytes)


def files_frame(
    spark: SparkSession, files: list[ImageFile], most_bytes: int = ImageSpec().most_bytes
) -> DataFrame:
    """As `read_files`, of files that were listed."""
    if not files:
        return spark.createDataFrame([], _Reader.schema)
    return listed(spark, files).mapInArrow(_Reader(most_bytes), _Reader.schema)


@dataclass(frozen=True)
class _Reader:
    """What runs on executors."""

    most_bytes: int

    schema = "path string, label string, content binary, unread string"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            for piece in pieces(batch):
                found = [_content(uri, self.most_bytes) for uri in piece.column("uri").to_pylist()]
                columns = {
                    "path": piece.column("path"),
                    "label": piece.column("label"),
                    "content": pa.array([content for content, _ in found], pa.binary()),
                    "unread": pa.array([why for _, why in found], pa.string()),
                }
                yield pa.RecordBatch.from_pydict(columns)


def file_columns(files: Sequence[ImageFile], most_bytes: int) -> dict[str, list[Any]]:
    """The columns of `read_files`, read here. Never raises for a file."""
    found = [_content(file.uri, most_bytes) for file in files]
    return {
        "path": [file.path for file in files],
        "label": [file.label for file in files],
        "content": [content for content, _ in found],
        "unread": [why for _, why in found],
    }


def _content(uri: str, most_bytes: int) -> tuple[bytes | None, str | None]:
    try:
        return read_bytes(uri, most_bytes), None
    except (OSError, DataError) as error:
        return None, one_line(error)


class Decoded(NamedTuple):
    """What was found of one image: its file's bytes and their SHA-256, its pixels, or why there are none."""

    content: bytes | None
    digest: str | None
    pixels: NDArray[np.uint8] | None
    error: str | None


class Checked(NamedTuple):
    """What was found of one image: its file's bytes and their SHA-256, its size, or why it has none."""

    content: bytes | None
    digest: str | None
    height: int | None
    width: int | None
    error: str | None


def read_and_check(uri: str, spec: ImageSpec) -> Checked:
    """One image, from its URI. Never raises: whatever a file provokes is its row's error."""
    content = digest = None
    try:
        content = read_bytes(uri, spec.most_bytes)
        digest = hashlib.sha256(content).hexdigest()
        return Checked(content, digest, *decoded_size(content, spec), None)
    except Exception as error:  # noqa: BLE001
        return Checked(content, digest, None, None, one_line(error))


def read_and_decode(value: str | bytes | None, spec: ImageSpec) -> Decoded:
    """One image, from its URI or its bytes. Never raises: whatever a file provokes is its row's error."""
    content = digest = None
    try:
        if value is None:
            raise DataError("null")
        content = read_bytes(value, spec.most_bytes) if isinstance(value, str) else value
        digest = hashlib.sha256(content).hexdigest()
        return Decoded(content, digest, decode(content, spec), None)
    except Exception as error:  # noqa: BLE001
        return Decoded(content, digest, None, one_line(error))


PIECE_ROWS = 64
"""Images of one batch that are decoded before any is handed on: bounds what a worker holds."""


def pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch, some images at a time."""
    return (batch.slice(at, PIECE_ROWS) for at in range(0, batch.num_rows, PIECE_ROWS))


def _parts(spark: SparkSession, files: list[ImageFile]) -> int:
    """Even work for all cores, and no part too large."""
    wanted = max(
        spark.sparkContext.defaultParallelism,
        sum(file.bytes for file in files) // PART_BYTES,
        len(files) // PART_FILES,
    )
    return min(wanted, len(files))
