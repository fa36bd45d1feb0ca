"""CSV files with a header, perhaps compressed: delimiter found, types inferred from every row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.data.files import base_folder, data_files, named_digests, partition_names
from ml_platform.data.text_files import UTF8, UTF16, Text, read_head, scan
from ml_platform.errors import DataError
from ml_platform.specs.sources import ReadingSpec
from ml_platform.store.folders import spark_path
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

DELIMITERS = (",", ";", "\t", "|")
SUFFIXES = (".csv", ".tsv")
OF_JAVA = {"utf-16-le": "utf-16le", "utf-16-be": "utf-16be"}
"""Names of encodings where Java has others than Python."""
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
"""Texts that stand for no value where a column's other values are not text."""

WHOLE = r"[+-]?(?:0|[1-9]\d{0,18})"
EXPONENT = r"[eE][+-]?\d+"
FRACTION = (
    rf"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*(?:{EXPONENT})?|{EXPONENT})|\.\d+(?:{EXPONENT})?)"
    r"|[+-]?(?:inf|Inf|Infinity)"
)
DATE = r"\d{4}-\d\d-\d\d"
TIMESTAMP = DATE + r"[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?"
PATTERNS = {
    "bigint": f"^(?:{WHOLE})$",
    "double": f"^(?:{FRACTION})$",
    "boolean": "^(?:true|false|True|False|TRUE|FALSE)$",
    "date": f"^{DATE}$",
    "timestamp": f"^{TIMESTAMP}$",
}
"""Types that a column may have instead of string, narrowest first. Numbers that begin with 0 are codes, and
so are whole ones beyond 64 bits: as floats, two of them could become one.

Spark's own inference takes 12:30:00 for a time of the present day, another value on each day.
"""
ALLOWED_BITS = {"bigint": 0b1, "double": 0b11, "boolean": 0b100, "date": 0b1000, "timestamp": 0b11000}
"""Types of single values, as bits in the order of `PATTERNS`, that a column of each type may mix."""
TEXT_BIT = 1 << len(PATTERNS)
LIMITED = {"bigint", "date", "timestamp"}
"""Types that lack some values which look like theirs: 9223372036854775808, 2024-02-30."""
WORDS = {"bigint": "whole number", "double": "number"}
"""What a person calls a type, where that is not its name."""
EXCEPTIONS = 0.01
"""Share of a column's values that may be bad, where bad rows are set aside."""
COLUMNS_AT_ONCE = 200
SHOWN = 60
"""Letters of a bad value that its reason quotes, times three for a whole record."""


@dataclass(frozen=True)
class Layout:
    """How the text is to be read."""

    names: tuple[str, ...]
    delimiter: str


class CsvSource:
    """A file, or every .csv and .tsv file below a folder, with the same header."""

    def __init__(self, source: str, reading: ReadingSpec) -> None:
        self._path = Path(source)
        self._reading = reading

    @cached_property
    def _files(self) -> list[Path]:
        return data_files(self._path, SUFFIXES)

    def columns(self) -> tuple[str, ...]:
        return (*self._layout.names, *self._partitions)

    def check(self) -> None:
        """Every header is looked at, and that there are rows."""
        rows = 0
        for file in self._files:
            records = self._records(file, self._layout.delimiter)
            header = None if self._reading.header else _stripped(next(records, []))
            if header is not None and header != self._layout.names:
                raise DataError(
                    f"{file} has other columns than {self._files[0].name}",
                    wanted=", ".join(self._layout.names),
                    got=", ".join(header),
                )
            rows += next(records, None) is not None
        if rows == 0:
            raise DataError(f"{self._path} is empty", wanted="rows below the header", got="a header alone")

    def identity(self) -> dict[str, str]:
        return named_digests(self._path, self._files)

    def notes(self) -> tuple[str, ...]:
        found = self._text.encoding
        if found == UTF8 or self._reading.encoding is not None:
            return ()
        return (f"{self._path.name} is not UTF-8; it was read as {found}",)

    @cached_property
    def _partitions(self) -> tuple[str, ...]:
        keys = partition_names(self._path, self._files[0])
        return tuple(key for key in keys if key not in self._layout.names)

    @cached_property
    def _text(self) -> Text:
        """What all files are. Files that are ASCII are of every encoding."""
        texts = {file: scan(file, self._reading.encoding) for file in self._files}
        encodings = {text.encoding: file for file, text in texts.items() if not text.is_ascii}
        if len(encodings) > 1:
            got = ", ".join(f"{file.name} is {encoding}" for encoding, file in sorted(encodings.items()))
            raise DataError(f"{self._path} holds files of several encodings", wanted="one", got=got)
        return Text(
            encoding=next(iter(encodings), UTF8),
            has_quotes=any(text.has_quotes for text in texts.values()),
            is_ascii=not encodings,
        )

    def frame(
        self, spark: SparkSession, reason: str | None = None, as_text: Set[str] = frozenset()
    ) -> DataFrame:
        import pyspark.sql.functions as sf

        self.check()
        text = self._text
        with spark_failures(f"{self._path} cannot be read as CSV"):
            texts = self._texts(spark, reason, text)
            types, exceptions = _infer(self._path, texts, reason, as_text)
        # In a record of another number of fields, any text may stand in any column.
        cast = "CAST" if reason is None else "TRY_CAST"
        columns = [_typed(name, types[name], cast, is_mixed=name in exceptions) for name in self.columns()]
        if reason is None:
            return texts.selectExpr(*columns)
        why = self._why_bad(reason, {name: types[name] for name in exceptions})
        return texts.select(*map(sf.expr, columns), why)

    def _why_bad(self, reason: str, types: Mapping[str, str]) -> Column:
        """Null for a good row; else what is wrong, and the text that is."""
        import pyspark.sql.functions as sf

        from ml_platform.store.fingerprint import named

        record = sf.substring(named(reason), 1, 3 * SHOWN)
        fields = sf.concat(sf.lit(f"a record of other than {len(self._layout.names)} fields: "), record)
        wrong = [sf.when(named(reason).isNotNull(), fields)]
        for name, kind in types.items():
            value = sf.substring(named(name), 1, SHOWN)
            what = sf.concat(sf.lit(f"column {name!r} is no {WORDS.get(kind, kind)}: "), value)
            wrong.append(sf.when(sf.expr(f"NOT {_is_missing(name)} AND NOT ({_fits(name, kind)})"), what))
        return sf.coalesce(*wrong).alias(reason)

    def _texts(self, spark: SparkSession, reason: str | None, text: Text) -> DataFrame:
        """Every column as text. A record of another number of fields is an error, or stands in `reason`."""
        from pyspark.sql.types import StringType, StructField, StructType

        names = self.columns() if reason is None else (*self.columns(), reason)
        schema = StructType([StructField(name, StringType()) for name in names])
        bad = {"mode": "FAILFAST"}
        if reason is not None:
            # Pruned, a record is not looked at to its end.
            bad = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": reason, "columnPruning": "false"}
        if text.encoding not in (UTF8, UTF16):
            spark = _reads_any_encoding(spark)
        reader = spark.read.schema(schema).options(
            sep=self._layout.delimiter,
            encoding=OF_JAVA.get(text.encoding, text.encoding),
            header=not self._reading.header,
            **bad,
            escape='"',
            # Only quotes can hold a line break; without them the file may be read in pieces.
            multiLine=text.has_quotes or text.encoding.startswith("utf-16"),
            ignoreLeadingWhiteSpace=True,
            ignoreTrailingWhiteSpace=True,
        )
        reader = reader.option("basePath", base_folder(self._path))
        return reader.csv([spark_path(file.as_uri()) for file in self._files])

    @cached_property
    def _layout(self) -> Layout:
        first, given = self._files[0], self._reading.delimiter
        fields = {each: next(self._records(first, each), ()) for each in ((given,) if given else DELIMITERS)}
        delimiter = max(fields, key=lambda each: len(fields[each]))
        names = self._reading.header or _stripped(fields[delimiter])
        if not any(fields[delimiter]):
            raise DataError(f"{first} is empty", wanted="a header", got="no text in its first line")
        if len(names) != len(fields[delimiter]):
            raise DataError(
                f"{first} has other columns than the header that was given",
                wanted=f"{len(names)} fields: {', '.join(names)}",
                got=f"{len(fields[delimiter])} in its first line: {', '.join(fields[delimiter])}"[:300],
                hint="name every column in --reading.header",
            )
        if "" in names:
            raise DataError(
                f"{first} has a column without a name",
                got=f"column {names.index('') + 1} of {len(names)}",
                hint="give every column a name in the first line, or all of them in --reading.header",
            )
        return Layout(names, delimiter)

    def _records(self, path: Path, delimiter: str) -> Iterator[list[str]]:
        """The first records, as far as a look at the head of the file goes."""
        lines = io.StringIO(read_head(path, self._reading.encoding), newline="")
        try:
            yield from (record for record in csv.reader(lines, delimiter=delimiter) if record)
        except csv.Error as error:
            raise DataError(f"{path} cannot be read as CSV", got=error) from error


def _stripped(header: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip() for name in header)


def _reads_any_encoding(spark: SparkSession) -> SparkSession:
    """Spark 4 refuses all encodings but Unicode's and Latin-1 unless it is told not to."""
    session = spark.newSession()
    session.conf.set("spark.sql.legacy.javaCharsets", "true")
    return session


def _infer(
    path: Path, texts: DataFrame, reason: str | None, as_text: Set[str]
) -> tuple[dict[str, str], list[str]]:
    """The narrowest type that every value of a column has, in one pass over all rows.

    Args:
        reason: The column of records with another number of fields. With it a column may have exceptions.
        as_text: Columns that are strings, whatever is in them.
    Returns:
        Types by column, and the columns with exceptions, which took a second pass over them.
    Raises:
        DataError: Such a record goes over several lines: nobody knows how many rows are in it.
    """
    import pyspark.sql.functions as sf

    names = [name for name in texts.columns if name != reason and name not in as_text]
    record = "CAST(NULL AS string)" if reason is None else quoted(reason)
    kinds = texts.selectExpr(
        *[
            f"CASE WHEN {record} IS NULL THEN {_kind_bit(name)} END AS `{at}`"
            for at, name in enumerate(names)
        ],
        f"CASE WHEN contains({record}, '\\n') THEN substring({record}, 1, {3 * SHOWN}) END AS swallowed",
    )
    bits_of = (sf.expr(f"bit_or(`{at}`)") for at in range(len(names)))
    found = kinds.agg(*bits_of, sf.min("swallowed")).first()
    assert found is not None
    *seen, swallowed = found
    if swallowed is not None:
        raise DataError(
            f"{path}: a record goes over several lines and has not the fields of the header",
            evidence=swallowed,
            hint="is a quote not closed there? in a quoted field a quote is written twice",
        )
    bits = dict(zip(names, seen, strict=True))
    types = dict.fromkeys(as_text, "string") | {name: _narrowest(seen) for name, seen in bits.items()}
    if reason is None:
        return types, []
    mixed = [name for name in names if types[name] == "string" and bits[name] not in (None, TEXT_BIT)]
    whole = texts.where(f"{record} IS NULL")
    usual = {name: kind for name, kind in _usual_types(whole, mixed).items() if kind != "string"}
    return types | usual, list(usual)


def _usual_types(texts: DataFrame, names: list[str]) -> dict[str, str]:
    """The narrowest type that all but a few values of each column have."""
    import pyspark.sql.functions as sf

    found: dict[str, str] = {}
    for at in range(0, len(names), COLUMNS_AT_ONCE):
        some = names[at : at + COLUMNS_AT_ONCE]
        bits = [sf.expr(_kind_bit(name)) for name in some]
        fits = [sf.count_if(bit.bitwiseAND(sf.lit(may)) > 0) for bit in bits for may in ALLOWED_BITS.values()]
        row = texts.agg(*[sf.count(bit) for bit in bits], *fits).first()
        assert row is not None
        for number, name in enumerate(some):
            first = len(some) + number * len(ALLOWED_BITS)
            counts = dict(zip(ALLOWED_BITS, row[first : first + len(ALLOWED_BITS)], strict=True))
            enough = (1 - EXCEPTIONS) * row[number]
            found[name] = next((kind for kind, count in counts.items() if count >= enough), "string")
    return found


# As SQL text: a column of it costs one call into the JVM, and a table may have thousands of columns.


def _kind_bit(name: str) -> str:
    """The bit of a value's own narrowest type; null for a missing value."""
    cases = " ".join(f"WHEN {_is_of(name, kind)} THEN {1 << at}" for at, kind in enumerate(PATTERNS))
    return f"CASE WHEN {_is_missing(name)} THEN NULL {cases} ELSE {TEXT_BIT} END"


def _is_missing(name: str) -> str:
    value = quoted(name)
    return f"({value} IS NULL OR {value} IN ({', '.join(map(repr, MISSING))}))"


def _is_of(name: str, kind: str) -> str:
    """Whether a text is a value of this type."""
    value = quoted(name)
    fits = f"{value} RLIKE r'{PATTERNS[kind]}'"
    return f"({fits} AND TRY_CAST({value} AS {kind}) IS NOT NULL)" if kind in LIMITED else fits


def _fits(name: str, kind: str) -> str:
    """Whether a text is a value of a type that a column of `kind` may mix."""
    return f"({_kind_bit(name)}) & {ALLOWED_BITS[kind]} > 0"


def quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def _narrowest(bits: int | None) -> str:
    """
    >>> _narrowest(0b11), _narrowest(0b101), _narrowest(None)
    ('double', 'string', 'string')
    """
    fits = (kind for kind, allowed in ALLOWED_BITS.items() if bits and not bits & ~allowed)
    return next(fits, "string")


def _typed(name: str, kind: str, cast: str, *, is_mixed: bool = False) -> str:
    value = quoted(name)
    if kind == "string":
        return value
    usable = f"NOT {_is_missing(name)}" + (f" AND {_fits(name, kind)}" if is_mixed else "")
    return f"{cast}(CASE WHEN {usable} THEN {value} END AS {kind}) AS {value}"
