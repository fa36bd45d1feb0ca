"""What every reader of tables offers; what it need not have is here."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Protocol

from ml_platform.specs.contracts import ColumnType, Contract
from ml_platform.specs.sources import ReadingSpec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from ml_platform.data.direct import DirectRead
    from ml_platform.store.manifest import DataFile


class Source(Protocol):
    """A table somewhere, not read yet."""

    def __init__(self, source: str, reading: ReadingSpec) -> None: ...

    def columns(self) -> tuple[str, ...]:
        """Names of the columns, from the header alone."""

    def check(self) -> None:
        """Refuse what is empty or corrupt, as far as a look from outside can tell."""

    def identity(self) -> dict[str, str]:
        """What it holds now, as digests of files or as a version. Equal only for equal content."""

    def frame(
        self, spark: SparkSession, reason: str | None = None, as_text: Set[str] = frozenset()
    ) -> DataFrame:
        """The table, with typed columns named as `columns` says.

        Args:
            reason: Name of a further column, which says why a row is bad and is null for the others. Not
                there where a source has no bad rows. None: a bad row is an error.
            as_text: Columns to leave as they are written, where a source is text.
        """

    def raw(self, spark: SparkSession, contract: Contract, reason: str) -> DataFrame:
        """The table for a model of this contract. `reason` is a column of it where rows are bad."""
        return self.frame(
            spark, as_text={column.name for column in contract.columns if column.type == "string"}
        )

    def direct(self, least: int) -> DirectRead | None:
        """The table as pieces that Spark tasks read by themselves, at least so many; None where it costs no
        less, or where nobody but Spark can tell what the rows are."""
        return None

    def plain_files(self, texts: Set[str] = frozenset()) -> tuple[DataFile, ...]:
        """The Parquet files that hold its rows as they are; empty where it is anything else, or where one of
        `texts` must be written out first."""
        return ()

    def types(self) -> Mapping[str, ColumnType]:
        """Types of columns, as far as the header alone says them."""
        return {}

    def notes(self) -> tuple[str, ...]:
        """What a person should know of how it is read. May read all of it."""
        return ()

    @property
    def forms(self) -> Mapping[str, str]:
        """Columns whose values are not written as Spark reads them, and how (`local_forms`)."""
        return {}

    def in_form(self, texts: DataFrame, names: Set[str]) -> DataFrame:
        """The frame with these columns of texts written as Spark reads them."""
        return texts

    def hint(self) -> str | None:
        """What may be wrong where a column is not there."""
        return None
