"""Parquet files, and folders of them (Hive partitions included)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.data.direct import DirectRead
from ml_platform.data.files import base_folder, data_files, named_digests, partition_names
from ml_platform.data.parquet_pieces import parquet_pieces
from ml_platform.data.source import Source
from ml_platform.errors import DataError
from ml_platform.specs.contracts import ColumnType
from ml_platform.specs.sources import ReadingSpec
from ml_platform.store.contents import content_digests
from ml_platform.store.folders import spark_path
from ml_platform.store.manifest import DataFile

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession

SMALL_BYTES = 1 << 20
"""Files of so many bytes together: a second job costs more than it saves."""


class ParquetSource(Source):
    """A file, or every .parquet file below a folder."""

    suffixes: tuple[str, ...] = (".parquet", ".pq")

    def __init__(self, source: str, reading: ReadingSpec) -> None:
        self._root = Path(source)

    @cached_property
    def _files(self) -> list[Path]:
        return data_files(self._root, self.suffixes)

    @cached_property
    def _schema(self) -> pa.Schema:
        return self._footer(self._files[0])[0]

    def _footer(self, path: Path) -> tuple[pa.Schema, int]:
        """Schema and rows of one file."""
        import pyarrow as pa
        from pyarrow import parquet

        try:
            footer = parquet.read_metadata(path)
        except (OSError, pa.ArrowException) as error:
            hint = "was it cut off while it was copied?"
            raise DataError(f"{path} is not a whole Parquet file", got=error, hint=hint) from error
        return footer.schema.to_arrow_schema(), footer.num_rows

    def columns(self) -> tuple[str, ...]:
        keys = partition_names(self._root, self._files[0])
        return (*self._schema.names, *(key for key in keys if key not in self._schema.names))

    def types(self) -> Mapping[str, ColumnType]:
        """Of plain columns; a folder's name may say anything."""
        import pyarrow.types as kinds

        tests: dict[ColumnType, Callable[[pa.DataType], bool]] = {
            "integer": kinds.is_integer,
            "float": kinds.is_floating,
            "decimal": kinds.is_decimal,
            "boolean": kinds.is_boolean,
            "string": lambda kind: bool(kinds.is_string(kind) or kinds.is_large_string(kind)),
            "date": kinds.is_date,
            "timestamp": kinds.is_timestamp,
        }
        return {
            field.name: name for field in self._schema for name, fits in tests.items() if fits(field.type)
        }

    def check(self) -> None:
        rows = 0
        for path in self._files:
            schema, count = self._footer(path)
            rows += count
            if sorted(schema.names) != sorted(self._schema.names):
                raise DataError(
                    f"{path} has other columns than {self._files[0].name}",
                    wanted=", ".join(self._schema.names),
                    got=", ".join(schema.names),
                )
        if rows == 0:
            got = f"0 rows in {len(self._files)} files"
            raise DataError(f"{self._root} is empty", wanted="rows", got=got)

    def identity(self) -> dict[str, str]:
        return named_digests(self._root, self._files)

    def plain_files(self, texts: Set[str] = frozenset()) -> tuple[DataFile, ...]:
        """The files, where each holds its rows as they are: equal columns of types that need no care.

        Empty where folders name columns, a file is read in a way that is Spark's own, or one of `texts`
        must be written out first.
        """
        footers = [self._footer(path) for path in self._files]
        same = all(schema.equals(self._schema) for schema, _ in footers)
        if not same or partition_names(self._root, self._files[0]) or not _is_plain(self._schema, texts):
            return ()
        digests = content_digests(self._files)
        return tuple(
            DataFile(uri=path.as_uri(), rows=rows, bytes=path.stat().st_size, checksum=digests[str(path)])
            for path, (_, rows) in zip(self._files, footers, strict=True)
        )

    def direct(self, least: int) -> DirectRead | None:
        """The table, where Arrow and Spark read the same out of its files; None, too, where it is small."""
        self.check()
        small = sum(path.stat().st_size for path in self._files) <= SMALL_BYTES
        if small or partition_names(self._root, self._files[0]):
            return None
        pieces = parquet_pieces(self._files, least)
        return None if pieces is None else DirectRead(pieces, self._judged)

    def _judged(self, spark: SparkSession, reason: str) -> DataFrame:
        """No row is bad."""
        import pyspark.sql.functions as sf

        return self.frame(spark).withColumn(reason, sf.lit(None).cast("string"))

    def frame(
        self, spark: SparkSession, reason: str | None = None, as_text: Set[str] = frozenset()
    ) -> DataFrame:
        self.check()
        nanos = [field for field in self._schema if str(field.type).startswith("timestamp[ns")]
        session = _reads_nanos(spark) if nanos else spark
        paths = [spark_path(path.as_uri()) for path in self._files]
        frame = session.read.option("basePath", base_folder(self._root)).parquet(*paths)
        # Arrow takes Spark's own 96-bit timestamps for nanoseconds, too; Spark knows them as what they are.
        whole = {field.name for field in frame.schema.fields if field.dataType.typeName() == "long"}
        read = {field.name: _micros(field) for field in nanos if field.name in whole}
        return frame.withColumns(read) if read else frame


def _is_plain(schema: pa.Schema, texts: Set[str]) -> bool:
    """Whether pyarrow and Spark read the same out of these columns, and `texts` are text."""
    import pyarrow.types as types

    def plain(name: str, kind: pa.DataType) -> bool:
        if name in texts:
            return bool(types.is_string(kind))
        if types.is_list(kind) or types.is_fixed_size_list(kind):
            return bool(types.is_floating(kind.value_type))
        numbers = types.is_signed_integer(kind) or types.is_float32(kind) or types.is_float64(kind)
        return bool(numbers or any(test(kind) for test in others))

    others = (types.is_boolean, types.is_string, types.is_binary, types.is_date32, types.is_decimal128)
    return len({name.lower() for name in schema.names}) == len(schema.names) and all(
        plain(field.name, field.type) for field in schema
    )


def _reads_nanos(spark: SparkSession) -> SparkSession:
    """Spark refuses timestamps in nanoseconds, which pandas writes, unless it reads them as integers."""
    session = spark.newSession()
    session.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")
    return session


def _micros(field: pa.Field) -> Column:
    import pyspark.sql.functions as sf

    from ml_platform.store.fingerprint import named

    instant = sf.timestamp_micros(sf.floor(named(field.name) / 1000).cast("long"))
    if field.type.tz is not None:
        return instant
    return sf.convert_timezone(sf.current_timezone(), sf.lit("UTC"), instant.cast("timestamp_ntz"))
