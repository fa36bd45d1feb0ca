"""Files of a data set as a Spark frame: by Spark's own reader, or by pyarrow on executors.

Spark reads a file system by itself. For object stores it would need Hadoop's jars and a second set of
credentials; there each Spark task reads one file through `open_parquet`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ml_platform.errors import StoreError
from ml_platform.store.folders import scheme_of, spark_path
from ml_platform.store.manifest import DataFile

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

BATCH_ROWS = 16_384


def frame_of(spark: SparkSession, files: Sequence[DataFile], schema: StructType) -> DataFrame:
    """A frame over these files, in partitions as Spark likes them (local) or one per file."""
    if not files:
        return spark.createDataFrame([], schema)
    if all(scheme_of(file.uri) == "file" for file in files):
        return spark.read.schema(schema).parquet(*[spark_path(file.uri) for file in files])
    reader = _FileReader([file.uri for file in files], _arrow_schema(schema))
    return spark.range(0, len(files), 1, len(files)).mapInArrow(reader, schema)


def _arrow_schema(schema: StructType) -> bytes:
    from pyspark.sql.pandas.types import to_arrow_schema

    serialized: bytes = to_arrow_schema(schema, timezone="UTC").serialize().to_pybytes()
    return serialized


class _FileReader:
    """What each Spark task runs: the rows of the files whose numbers come in."""

    def __init__(self, uris: list[str], schema: bytes) -> None:
        self._uris = uris
        self._schema = schema

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        schema = pa.ipc.read_schema(pa.py_buffer(self._schema))
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from _rows(self._uris[number], schema)


def _rows(uri: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    from ml_platform.store.parquet_files import open_parquet

    try:
        with open_parquet(uri, verified=True) as opened:
            # One row group at a time: what is asked for together is fetched, and held, together.
            for number in range(opened.num_row_groups):
                for batch in opened.iter_batches(BATCH_ROWS, row_groups=[number], columns=schema.names):
                    yield batch.select(schema.names).cast(schema)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{uri} cannot be read", wanted="the file as it was written", got=error) from error
