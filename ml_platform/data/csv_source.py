"""CSV files, perhaps compressed: delimiter and header found, types inferred from every row."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.data.csv_header import is_header
from ml_platform.data.csv_pieces import CsvPieces, csv_pieces
from ml_platform.data.csv_sample import SPREAD, Sample, take_sample
from ml_platform.data.direct import DirectRead
from ml_platform.data.files import base_folder, data_files, named_digests, partition_names
from ml_platform.data.local_forms import forms_of, rewritten, said
from ml_platform.data.text_files import LATIN1, UTF8, UTF16, WESTERN, Text, read_head, scan
from ml_platform.data.text_types import (
    ALLOWED,
    KINDS,
    MISSING,
    PATTERNS,
    QUARANTINE_LIMIT,
    kind_counts,
    narrowest,
    surely_text,
    usual,
)
from ml_platform.errors import DataError
from ml_platform.specs.contracts import ColumnType, Contract
from ml_platform.specs.profiles import Profile
from ml_platform.specs.sources import ReadingSpec
from ml_platform.store.folders import spark_path
from ml_platform.store.spark_failures import spark_failures
from ml_platform.store.sql import quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame, SparkSession

DELIMITERS = (",", ";", "\t", "|")
SUFFIXES = (".csv", ".tsv")
OF_JAVA = {"utf-16-le": "utf-16le", "utf-16-be": "utf-16be"}
"""Names of encodings where Java has others than Python."""
ALLOWED_BITS = {kind: sum(1 << KINDS.index(each) for each in mixed) for kind, mixed in ALLOWED.items()}
"""`ALLOWED`, as bits in the order of `KINDS`."""
TEXT_BIT = 1 << len(PATTERNS)
LIMITED = {"bigint", "date", "timestamp"}
"""Types that lack some values which look like theirs: 9223372036854775808, 2024-02-30."""
WORDS = {"bigint": "whole number", "double": "number"}
"""What a person calls a type, where that is not its name."""
EMPTY = "void"
"""Type of a column without a value, in a table that need not say what it is."""
SERVING: Mapping[ColumnType, tuple[str, ...]] = {
    **dict.fromkeys(("integer", "float", "decimal"), ("bigint", "double")),
    "boolean": ("boolean",),
    "date": ("date",),
    "timestamp": ("date", "timestamp"),
}
"""Types that serve a model which knows a column as one of these, narrowest first."""
SAMPLED = {UTF8, WESTERN, LATIN1}
"""Encodings in which a line break is a byte that is in no other letter."""
HEAD_RECORDS = 1000
"""Records that are compared with the first one, to see whether it is a header."""
NO_HEADER = (
    "its first line was read as values, so columns are called column_1, column_2 and so on "
    "(if it is a header: --reading.has-header; to name them: --reading.header)"
)
SHOWN = 60
"""Letters of a bad value that its reason quotes, times three for a whole record."""


@dataclass(frozen=True)
class Layout:
    """How the text is to be read."""

    names: tuple[str, ...]
    delimiter: str
    has_header: bool


class CsvSource:
    """A file, or every .csv and .tsv file below a folder, with the same header or without one."""

    def __init__(self, source: str, reading: ReadingSpec, trained: Mapping[str, str] = {}) -> None:
        self._path = Path(source)
        self._reading = reading
        self._trained = trained

    def for_model(self, contract: Contract) -> CsvSource:
        """The same, read by a model of this contract: what could be written in two forms is in its own."""
        forms = {column.name: column.form for column in contract.columns if column.form is not None}
        return CsvSource(str(self._path), self._reading, forms)

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
            header = _stripped(next(records, [])) if self._layout.has_header else None
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

    def types(self) -> Mapping[str, ColumnType]:
        return {}

    def notes(self) -> tuple[str, ...]:
        found = self._text.encoding
        notes = said(self.forms)
        if found != UTF8 and self._reading.encoding is None:
            notes = (f"{self._path.name} is not UTF-8; it was read as {found}", *notes)
        if self.is_unnamed:
            notes = (f"{self._path.name}: {NO_HEADER}", *notes)
        return notes

    @property
    def is_unnamed(self) -> bool:
        """Whether the first line was found to be no header."""
        said = self._reading.header or self._reading.has_header is not None
        return not (said or self._layout.has_header)

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
            breaks_in_quotes=any(text.breaks_in_quotes for text in texts.values()),
        )

    def frame(
        self, spark: SparkSession, reason: str | None = None, as_text: Set[str] = frozenset()
    ) -> DataFrame:
        self.check()
        with spark_failures(f"{self._path} cannot be read as CSV"):
            texts = self.in_form(self._texts(spark, reason, self._text), self.forms.keys() - as_text)
            sample = self._sample if reason is not None else None
            if sample is not None and sample.is_whole and not self._text.has_quotes:
                types, exceptions = _decided(self._layout.names, sample.counts, as_text)
            else:
                types, exceptions = _infer(self._path, texts, reason, as_text)
        return self._of_types(texts, reason, types, exceptions)

    def raw(self, spark: SparkSession, contract: Contract, reason: str) -> DataFrame:
        """The table for a model of this contract; `reason` is a column of it where a row is bad.

        Bad is a record of another number of fields, and one with a value that is not of the type that the
        model knows its column by, if that column has but a few.

        Raises:
            DataError: More than a few records have another number of fields.
        """
        as_text = {column.name for column in contract.columns if column.type == "string"}
        self.check()
        with spark_failures(f"{self._path} cannot be read as CSV"):
            texts = self.in_form(self._texts(spark, reason, self._text), self.forms.keys() - as_text)
            seen = _counted(self._path, texts, reason, as_text)
            if seen.bad > QUARANTINE_LIMIT * seen.rows:
                raise too_many_bad(self._path, seen.bad, seen.rows, seen.example)
            types = dict.fromkeys(as_text, "string") | {
                name: narrowest(count) if count.any() else EMPTY for name, count in seen.counts.items()
            }
            few = {
                column.name: _but_a_few(seen.counts[column.name], SERVING[column.type], seen.rows)
                for column in contract.columns
                if column.type in SERVING and types.get(column.name) == "string"
            }
            exceptions = {name: kind for name, kind in few.items() if kind is not None}
            if not seen.bad and not exceptions:
                whole = self.in_form(self._texts(spark, None, self._text), self.forms.keys() - as_text)
                return self._of_types(whole, None, types, ())
        return self._of_types(texts, reason, types | exceptions, exceptions)

    def _of_types(
        self, texts: DataFrame, reason: str | None, types: Mapping[str, str], exceptions: Collection[str]
    ) -> DataFrame:
        """Texts as values, and why a row is bad where a column has exceptions."""
        import pyspark.sql.functions as sf

        columns = [_typed(name, types[name], is_mixed=name in exceptions) for name in self.columns()]
        if reason is None:
            return texts.selectExpr(*columns)
        why = self._why_bad(reason, {name: types[name] for name in exceptions})
        return texts.select(*map(sf.expr, columns), why)

    def direct(self, least: int) -> DirectRead | None:
        """The table with types from a sample; None where `frame` knows them at once, or must read all rows.

        Whether all rows are of these types is found out as they are read.
        """
        from ml_platform.store.fingerprint import WIDE

        self.check()
        sample = self._sample
        if sample is None or sample.is_whole or len(self._layout.names) > WIDE:
            return None
        types, exceptions = _decided(self._layout.names, sample.counts, frozenset())
        found = dict(zip(self._layout.names, sample.counts, strict=True))
        unsure = {name: seen for name, seen in found.items() if types[name] == "string" and seen.any()}
        if exceptions or not all(surely_text(seen, SPREAD * int(seen.sum())) for seen in unsure.values()):
            return None

        def holds(profile: Profile, aside: int) -> bool:
            values = {each.name: profile.rows - each.nulls + aside for each in profile.columns}
            return all(surely_text(seen, values.get(name, aside)) for name, seen in unsure.items())

        def frame(spark: SparkSession, reason: str) -> DataFrame:
            texts = self._texts(spark, reason, self._text)
            typed = [f"{_typed(name, types[name])}" for name in self.columns()]
            return texts.selectExpr(*typed, quoted(reason)).withColumn(reason, self._why_bad(reason, {}))

        pieces = CsvPieces(
            pieces=csv_pieces(self._files, least),
            types={name: types[name] for name in self._layout.names},
            unseen=frozenset(name for name, seen in found.items() if not seen.any()),
            delimiter=self._layout.delimiter,
            encoding=self._text.encoding,
            has_header=self._layout.has_header,
            has_quotes=self._text.has_quotes,
        )
        return DirectRead(pieces, frame, holds)

    @cached_property
    def _sample(self) -> Sample | None:
        """None where a line may be no record, or nobody but Spark knows where it ends."""
        delimiter, text = self._layout.delimiter, self._text
        compressed = any(file.suffix.lower() == ".gz" for file in self._files)
        plain = delimiter in DELIMITERS and text.encoding in SAMPLED and not text.breaks_in_quotes
        if compressed or self._partitions or self.forms or not plain:
            return None
        return take_sample(
            self._files,
            delimiter=delimiter,
            encoding=text.encoding,
            columns=len(self._layout.names),
            has_header=self._layout.has_header,
            has_quotes=text.has_quotes,
        )

    @cached_property
    def forms(self) -> dict[str, str]:
        """Columns of the first file whose numbers or dates are not written as Spark reads them, and how."""
        names = self._layout.names
        records = list(self._records(self._files[0], self._layout.delimiter))
        # The last one may be cut off.
        whole = [each for each in records[1 if self._layout.has_header else 0 :] if len(each) == len(names)]
        return forms_of(names, whole, self._trained)

    def in_form(self, texts: DataFrame, names: Set[str]) -> DataFrame:
        """The frame with these columns of texts written as Spark reads them."""
        forms = {name: form for name, form in self.forms.items() if name in names}
        if not forms:
            return texts
        columns = (rewritten(name, forms[name]) if name in forms else quoted(name) for name in texts.columns)
        return texts.selectExpr(*columns)

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
            header=self._layout.has_header,
            **bad,
            escape='"',
            # Without a line break in quotes the file may be read in pieces.
            multiLine=text.breaks_in_quotes or text.encoding.startswith("utf-16"),
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
        has_header = self._has_header(first, delimiter)
        unnamed = tuple(f"column_{at}" for at in range(1, len(fields[delimiter]) + 1))
        names = self._reading.header or (_stripped(fields[delimiter]) if has_header else unnamed)
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
        return Layout(names, delimiter, has_header)

    def _has_header(self, first: Path, delimiter: str) -> bool:
        """As it was said, else as it looks like."""
        if self._reading.header or self._reading.has_header is not None:
            return bool(self._reading.has_header)
        records = self._records(first, delimiter)
        names = next(records, [])
        alike = (record for record in records if len(record) == len(names))
        return is_header(names, list(islice(alike, HEAD_RECORDS)))

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
        Types by column, and the columns with exceptions.
    Raises:
        DataError: As `_counted`.
    """
    counts = _counted(path, texts, reason, as_text).counts
    if reason is None:
        found = {name: narrowest(count) if count.any() else EMPTY for name, count in counts.items()}
        return dict.fromkeys(as_text, "string") | found, []
    return _decided(list(counts), list(counts.values()), as_text)


@dataclass(frozen=True)
class _Counted:
    """What a pass over all rows found."""

    counts: Mapping[str, NDArray[np.int64]]
    """How many values of a column are of which type. Shape (6,)."""
    rows: int
    bad: int
    """Records with another number of fields."""
    example: str | None
    """One of them."""


def _counted(path: Path, texts: DataFrame, reason: str | None, as_text: Set[str]) -> _Counted:
    """One pass over all rows.

    Raises:
        DataError: A bad record goes over several lines: nobody knows how many rows are in it.
    """
    from ml_platform.store.fingerprint import mapped

    names = [name for name in texts.columns if name != reason and name not in as_text]
    wanted = tuple(texts.columns.index(name) for name in names)
    counter = _KindCounter(wanted, None if reason is None else texts.columns.index(reason))
    seen = mapped(
        texts, counter, "counts binary, rows bigint, bad bigint, example string, swallowed string"
    ).collect()
    swallowed = [row.swallowed for row in seen if row.swallowed is not None]
    if swallowed:
        raise DataError(
            f"{path}: a record goes over several lines and has not the fields of the header",
            evidence=min(swallowed),
            hint="is a quote not closed there? in a quoted field a quote is written twice",
        )
    counts = np.zeros((len(names), len(KINDS)), np.int64)
    for row in seen:
        counts += np.frombuffer(row.counts, np.int64).reshape(counts.shape)
    return _Counted(
        counts=dict(zip(names, counts, strict=True)),
        rows=sum(row.rows for row in seen),
        bad=sum(row.bad for row in seen),
        example=min((row.example for row in seen if row.example is not None), default=None),
    )


def _but_a_few(count: NDArray[np.int64], serving: Sequence[str], rows: int) -> str | None:
    """The narrowest of these types that all values but a few have; None where it is more than a few rows."""
    fits = {kind: sum(int(count[KINDS.index(each)]) for each in ALLOWED[kind]) for kind in serving}
    most = max(fits.values())
    if int(count.sum()) - most > QUARANTINE_LIMIT * rows:
        return None
    return next(kind for kind in serving if fits[kind] == most)


def too_many_bad(path: Path, bad: int, rows: int, example: str | None) -> DataError:
    """The error of a table of which too little can be read."""
    return DataError(
        f"{path}: too many rows are bad",
        wanted=f"at most {QUARANTINE_LIMIT:.0%} of {rows} rows",
        got=f"{bad} rows ({bad / rows:.1%})",
        evidence=example,
        hint="repair the file, or remove these rows from it",
    )


def _decided(
    names: Sequence[str], counts: Sequence[NDArray[np.int64]] | NDArray[np.int64], as_text: Set[str]
) -> tuple[dict[str, str], list[str]]:
    """Types by column, a few exceptions aside, and the columns that have some.

    Args:
        counts: Of each name. Shape (columns, 6).
    """
    of = dict(zip(names, counts, strict=True))
    found = {name: narrowest(count) for name, count in of.items()} | dict.fromkeys(as_text, "string")
    mostly = {name: usual(count) for name, count in of.items() if name not in as_text}
    mixed = [name for name in mostly if found[name] == "string" and mostly[name] != "string"]
    return found | {name: mostly[name] for name in mixed}, mixed


class _KindCounter:
    """What each Spark task runs: how many values of each column are of which type."""

    def __init__(self, columns: tuple[int, ...], record: int | None) -> None:
        self._columns = columns
        self._record = record

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.compute as pc

        counts = np.zeros((len(self._columns), len(KINDS)), np.int64)
        total = bad = 0
        examples: list[str] = []
        swallowed: list[str] = []
        for batch in batches:
            rows = batch
            total += batch.num_rows
            if self._record is not None:
                records = batch.column(self._record)
                bad += len(records) - records.null_count
                examples += pc.utf8_slice_codeunits(records.drop_null()[:1], 0, 3 * SHOWN).to_pylist()
                over = records.filter(pc.match_substring(records, "\n"))
                swallowed += pc.utf8_slice_codeunits(over, 0, 3 * SHOWN).to_pylist()[:1]
                rows = batch.filter(records.is_null()) if records.null_count < len(records) else batch
            for at, column in enumerate(self._columns):
                counts[at] += kind_counts(rows.column(column))
        said = [pa.array([min(found, default=None)], pa.string()) for found in (examples, swallowed)]
        numbers = [pa.array([total]), pa.array([bad])]
        yield pa.RecordBatch.from_arrays(
            [pa.array([counts.tobytes()], pa.binary()), *numbers, *said],
            ["counts", "rows", "bad", "example", "swallowed"],
        )


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


def _typed(name: str, kind: str, *, is_mixed: bool = False) -> str:
    """A column of texts as values; null where a text is none, as those are that stand for no value."""
    value = quoted(name)
    if kind in ("string", EMPTY):
        return value if kind == "string" else f"NULL AS {value}"
    usable = f"CASE WHEN {_fits(name, kind)} THEN {value} END" if is_mixed else value
    cast = f"TRY_CAST({usable} AS {kind})"
    # Of texts that stand for no value, NaN alone is a number, too.
    return f"{f'nanvl({cast}, NULL)' if kind == 'double' else cast} AS {value}"
