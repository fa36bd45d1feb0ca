"""Data sets out of tables that Spark tasks read by themselves: no row passes through the JVM on its way.

What is written is read once more, by Spark, for its fingerprint: together half the time of handing rows over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ml_platform.store.folders import scheme_of, spark_path
from ml_platform.store.location import data_uri

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession
    from pyspark.sql.types import StructType


class DoubtError(Exception):
    """A table is not what it was taken for; somebody else is to read it."""


class Pieces(Protocol):
    """A table in pieces, each to be read by one Spark task. It is pickled."""

    @property
    def schema(self) -> StructType: ...

    @property
    def count(self) -> int:
        """How many pieces there are."""

    def rows(self, piece: int) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Rows to be written, with columns as the schema has them, and how many others are set aside.

        Raises:
            DoubtError: They are not what the schema says.
        """


@dataclass
class Aside:
    """What became of the rows of a task that are not written."""

    rows: int = 0
    doubt: str | None = None


class PieceRows:
    """Numbers of pieces → the rows in them, up to the first doubt."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def __call__(self, numbers: Iterator[pa.RecordBatch], aside: Aside) -> Iterator[pa.RecordBatch]:
        try:
            for batch in numbers:
                for piece in batch.column(0).to_pylist():
                    for rows, others in self._pieces.rows(piece):
                        aside.rows += others
                        yield rows
        except DoubtError as doubt:
            aside.doubt = str(doubt)


def can_write_pieces() -> bool:
    """Whether Spark itself can read what its tasks have written."""
    return scheme_of(data_uri()) == "file"


def fingerprint_of(
    spark: SparkSession, schema: StructType, staged: str, files: Sequence[str]
) -> dict[str, Any]:
    """What a fingerprint is made of, from files that were just written."""
    from ml_platform.store.fingerprint import aggregates, hash_columns

    paths = [spark_path(f"{staged}{file}") for file in files]
    frame = spark.read.schema(schema).parquet(*paths) if paths else spark.createDataFrame([], schema)
    hashes = [column.alias(name) for name, column in hash_columns(schema).items()]
    found: dict[str, Any] = frame.select(hashes).agg(*aggregates()).collect()[0].asDict()
    return found
