"""ORC files, and folders of them (Hive partitions included)."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from ml_platform.data.files import base_folder
from ml_platform.data.parquet_source import ParquetSource
from ml_platform.errors import DataError
from ml_platform.store.folders import spark_path

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from ml_platform.store.manifest import DataFile


class OrcSource(ParquetSource):
    """A file, or every .orc file below a folder."""

    suffixes = (".orc",)

    def _footer(self, path: Path) -> tuple[pa.Schema, int]:
        import pyarrow as pa
        from pyarrow import orc

        try:
            file = orc.ORCFile(path)
        except (OSError, pa.ArrowException) as error:
            hint = "was it cut off while it was copied?"
            raise DataError(f"{path} is not a whole ORC file", got=error, hint=hint) from error
        return file.schema, file.nrows

    def direct(self, least: int) -> None:
        """Arrow has no way to read a part of a file."""

    def plain_files(self, texts: Set[str] = frozenset()) -> tuple[DataFile, ...]:
        """None of them is Parquet."""
        return ()

    def frame(
        self, spark: SparkSession, reason: str | None = None, as_text: Set[str] = frozenset()
    ) -> DataFrame:
        self.check()
        paths = [spark_path(path.as_uri()) for path in self._files]
        return spark.read.option("basePath", base_folder(self._root)).orc(paths)
