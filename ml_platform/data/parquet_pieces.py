"""Parquet files that Spark tasks read with Arrow, some row groups each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.types as kinds
from pyarrow import parquet

from ml_platform.data.direct import rows_schema, together
from ml_platform.store.pieces import DoubtError

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

BATCH_ROWS = 65_536
PIECE_BYTES = 256 << 20
"""Of row groups together, not compressed."""
SPARK_TYPES: dict[str, Callable[[pa.DataType], bool]] = {
    "byte": kinds.is_int8,
    "short": kinds.is_int16,
    "integer": kinds.is_int32,
    "long": kinds.is_int64,
    "float": kinds.is_float32,
    "double": kinds.is_float64,
    "boolean": kinds.is_boolean,
    "string": lambda kind: bool(kinds.is_string(kind) or kinds.is_large_string(kind)),
    "date": kinds.is_date32,
    "timestamp": lambda kind: bool(_is_micros(kind) and kind.tz is not None),
    "timestamp_ntz": lambda kind: bool(_is_micros(kind) and kind.tz is None),
}
"""Types whose values are the same to Spark and to Arrow, by Spark's names."""
SPARK_VERSION, SPARK_SCHEMA = b"org.apache.spark.version", b"org.apache.spark.sql.parquet.row.metadata"
"""Keys of what Spark writes into a file."""


@dataclass(frozen=True)
class ParquetPieces:
    """Files with equal columns.

    Attributes:
        pieces: Of each its files, and the row groups of them.
        types: Spark's type of each column, by name.
    """

    pieces: tuple[tuple[tuple[Path, int], ...], ...]
    types: dict[str, str]

    @property
    def count(self) -> int:
        return len(self.pieces)

    @cached_property
    def schema(self) -> StructType:
        return rows_schema(self.types)

    def rows(self, piece: int) -> Iterator[tuple[pa.RecordBatch, int]]:
        from pyspark.sql.pandas.types import to_arrow_schema

        names = list(self.types)
        schema = to_arrow_schema(self.schema, timezone="UTC")
        for path, parts in groupby(self.pieces[piece], itemgetter(0)):
            groups = [group for _, group in parts]
            try:
                with parquet.ParquetFile(path, coerce_int96_timestamp_unit="us") as opened:
                    for batch in opened.iter_batches(BATCH_ROWS, row_groups=groups, columns=names):
                        yield batch.select(names).cast(schema), 0
            except (OSError, pa.ArrowException) as error:
                raise DoubtError(f"{path} cannot be read: {error}") from error


def parquet_pieces(files: Sequence[Path], least: int) -> ParquetPieces | None:
    """Files in about so many pieces, or more, where they have as many row groups.

    None where only Spark knows what their rows are.
    """
    footers = {path: parquet.read_metadata(path) for path in files}
    types = [_spark_types(footer) for footer in footers.values()]
    if types[0] is None or any(each != types[0] for each in types):
        return None
    sizes = {
        (path, at): footer.row_group(at).total_byte_size
        for path, footer in footers.items()
        for at in range(footer.num_row_groups)
    }
    most = min(PIECE_BYTES, -(-sum(sizes.values()) // least))
    return ParquetPieces(together(sizes.items(), most), types[0])


def _spark_types(footer: parquet.FileMetaData) -> dict[str, str] | None:
    """Spark's type of each column; None where one needs care, as have files of Spark before 3.0."""
    schema, said = footer.schema.to_arrow_schema(), footer.metadata or {}
    if len(set(schema.names)) != len(footer.schema):
        return None
    types = {field.name: _spark_type(field.type) for field in schema}
    # Spark's own moments of 96 bits look like nanoseconds to Arrow.
    types |= {
        name: "timestamp"
        for at, name in enumerate(schema.names)
        if footer.schema.column(at).physical_type == "INT96"
    }
    if said.get(SPARK_VERSION, b"4").startswith((b"1.", b"2.")) or any(b"legacy" in key for key in said):
        return None
    if SPARK_SCHEMA in said:
        fields = json.loads(said[SPARK_SCHEMA])["fields"]
        if {field["name"]: field["type"] for field in fields} != types or any(f["metadata"] for f in fields):
            return None
    known = {name: kind for name, kind in types.items() if kind is not None}
    return known if len(known) == len(types) else None


def _spark_type(kind: pa.DataType) -> str | None:
    if kinds.is_decimal128(kind):
        return f"decimal({kind.precision},{kind.scale})"
    return next((name for name, fits in SPARK_TYPES.items() if fits(kind)), None)


def _is_micros(kind: pa.DataType) -> bool:
    return bool(kinds.is_timestamp(kind) and kind.unit in {"ms", "us"})
