"""CSV files with a header, perhaps compressed: delimiter found, types inferred from every row."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.data.text_files import open_bytes
from ml_platform.errors import DataError
from ml_platform.store.contents import content_digests
from ml_platform.store.folders import spark_path
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

DELIMITERS = (",", ";", "\t", "|")
HEAD_BYTES = 1 << 20
CHUNK_BYTES = 1 << 22
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
"""Texts that stand for no value where a column's other values are not text."""

WHOLE = r"[+-]?(?:0|[1-9]\d{0,17})"
FRACTION = r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|Inf|Infinity)"
DATE = r"\d{4}-\d\d-\d\d"
TIMESTAMP = DATE + r"[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?"
PATTERNS = {
    "bigint": f"^(?:{WHOLE})$",
    "double": f"^(?:{FRACTION})$",
    "boolean": "^(?:true|false|True|False|TRUE|FALSE)$",
    "date": f"^{DATE}$",
    "timestamp": f"^{TIMESTAMP}$",
}
"""Types that a column may have instead of string, narrowest first. Numbers that begin with 0 are codes.

Spark's own inference takes 12:30:00 for a time of the present day, another value on each day.
"""
ALLOWED_BITS = {"bigint": 0b1, "double": 0b11, "boolean": 0b100, "date": 0b1000, "timestamp": 0b11000}
"""Types of single values, as bits in the order of `PATTERNS`, that a column of each type may mix."""
TEXT_BIT = 1 << len(PATTERNS)


@dataclass(frozen=True)
class Layout:
    """How the text is to be read."""

    names: tuple[str, ...]
    delimiter: str


class CsvSource:
    """One file, UTF-8."""

    def __init__(self, source: str) -> None:
        self._path = Path(source)

    def columns(self) -> tuple[str, ...]:
        return self._layout.names

    def check(self) -> None:
        records = self._records()
        next(records, None)
        if next(records, None) is None:
            raise DataError(f"{self._path} is empty", wanted="rows below the header", got="a header alone")

    def identity(self) -> dict[str, str]:
        (digest,) = content_digests([self._path]).values()
        return {self._path.name: digest}

    def frame(self, spark: SparkSession) -> DataFrame:
        self.check()
        quoted = _scan(self._path)
        with spark_failures(f"{self._path} cannot be read as CSV"):
            texts = self._texts(spark, has_quotes=quoted)
            types = _infer(texts)
        return texts.select([_typed(name, types[name]) for name in texts.columns])

    def _texts(self, spark: SparkSession, *, has_quotes: bool) -> DataFrame:
        """Every column as text. A record with too few or too many fields is an error."""
        from pyspark.sql.types import StringType, StructField, StructType

        schema = StructType([StructField(name, StringType()) for name in self._layout.names])
        reader = spark.read.schema(schema).options(
            sep=self._layout.delimiter,
            header=True,
            mode="FAILFAST",
            escape='"',
            # Only quotes can hold a line break; without them the file may be read in pieces.
            multiLine=has_quotes,
            ignoreLeadingWhiteSpace=True,
            ignoreTrailingWhiteSpace=True,
        )
        return reader.csv(spark_path(self._path.as_uri()))

    @cached_property
    def _layout(self) -> Layout:
        delimiter = max(DELIMITERS, key=lambda each: len(next(self._records(each), ())))
        header = next(self._records(delimiter), [])
        names = tuple(name.strip() for name in header)
        if not any(names):
            raise DataError(f"{self._path} is empty", wanted="a header", got="no text in its first line")
        if "" in names:
            raise DataError(
                f"{self._path} has a column without a name",
                got=f"column {names.index('') + 1} of {len(names)}",
                hint="give every column a name in the first line",
            )
        return Layout(names, delimiter)

    def _records(self, delimiter: str | None = None) -> Iterator[list[str]]:
        """The first records, as far as a look at the head of the file goes."""
        lines = io.StringIO(_head(self._path), newline="")
        reader = csv.reader(lines, delimiter=delimiter or self._layout.delimiter)
        try:
            yield from (record for record in reader if record)
        except csv.Error as error:
            raise DataError(f"{self._path} cannot be read as CSV", got=error) from error


def _head(path: Path) -> str:
    with open_bytes(path) as file:
        content = file.read(HEAD_BYTES)
    if b"\0" in content:
        raise DataError(f"{path} is not text", got=f"a NUL byte at {content.index(0)}")
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(content)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error.start, error) from error


def _scan(path: Path) -> bool:
    """Whether the text holds quotes. Refuses what is not UTF-8: Spark would replace it in silence."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    quotes, position = False, 0
    with open_bytes(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                raise _not_utf8(path, position + error.start, error) from error
            quotes = quotes or b'"' in chunk
            position += len(chunk)
    return quotes


def _not_utf8(path: Path, position: int, error: UnicodeDecodeError) -> DataError:
    return DataError(
        f"{path} is not UTF-8 text",
        got=f"byte 0x{error.object[error.start]:02x} near position {position}",
        hint=f"convert it: iconv -f LATIN1 -t UTF-8 {path.name}",
    )


def _infer(texts: DataFrame) -> dict[str, str]:
    """The narrowest type that every value of a column has, in one pass over all rows."""
    import pyspark.sql.functions as sf

    from ml_platform.store.fingerprint import named

    kinds = texts.select([_kind_bit(name).alias(f"{at}") for at, name in enumerate(texts.columns)])
    found = kinds.agg(*[sf.bit_or(named(at)).alias(at) for at in kinds.columns]).first()
    assert found is not None
    return {name: _narrowest(bits) for name, bits in zip(texts.columns, found, strict=True)}


def _kind_bit(name: str) -> Column:
    """The bit of a value's own narrowest type; null for a missing value."""
    import pyspark.sql.functions as sf

    from ml_platform.store.fingerprint import named

    value = named(name)
    bit = sf.when(value.isNull() | value.isin(*MISSING), None)
    for at, (kind, pattern) in enumerate(PATTERNS.items()):
        fits = value.rlike(pattern)
        if kind in {"date", "timestamp"}:
            fits &= value.try_cast(kind).isNotNull()
        bit = bit.when(fits, 1 << at)
    return bit.otherwise(TEXT_BIT)


def _narrowest(bits: int | None) -> str:
    """
    >>> _narrowest(0b11), _narrowest(0b101), _narrowest(None)
    ('double', 'string', 'string')
    """
    fits = (kind for kind, allowed in ALLOWED_BITS.items() if bits and not bits & ~allowed)
    return next(fits, "string")


def _typed(name: str, kind: str) -> Column:
    import pyspark.sql.functions as sf

    from ml_platform.store.fingerprint import named

    if kind == "string":
        return named(name)
    return sf.when(~named(name).isin(*MISSING), named(name)).cast(kind).alias(name)
