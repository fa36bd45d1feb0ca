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

from ml_platform.data.csv_header import is_header
from ml_platform.data.csv_pieces import CsvPieces, csv_pieces
from ml_platform.data.csv_sample import SPREAD, Sample, take_sample
from ml_platform.data.csv_types import (
    EMPTY,
    SHOWN,
    but_a_few,
    counted,
    decided,
    fits,
    infer,
    is_missing,
    typed,
)
from ml_platform.data.direct import DirectRead
from ml_platform.data.files import base_folder, data_files, named_digests, partition_names
from ml_platform.data.local_forms import forms_of, rewritten, said
from ml_platform.data.source import Source
from ml_platform.data.text_files import LATIN1, UTF8, UTF16, WESTERN, Text, read_head, scan, too_many_bad
from ml_platform.data.text_types import (
    QUARANTINE_LIMIT,
    WORDS,
    narrowest,
    surely_text,
)
from ml_platform.errors import DataError
from ml_platform.specs.contracts import ColumnType, Contract
from ml_platform.specs.profiles import Profile
from ml_platform.specs.sources import ReadingSpec
from ml_platform.store.folders import spark_path
from ml_platform.store.spark_failures import spark_failures
from ml_platform.store.sql import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

DELIMITERS = (",", ";", "\t", "|")
SUFFIXES = (".csv", ".tsv")
OF_JAVA = {"utf-16-le": "utf-16le", "utf-16-be": "utf-16be"}
"""Names of encodings where Java has others than Python."""
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


@dataclass(frozen=True)
class Layout:
    """How the text is to be read."""

    names: tuple[str, ...]
    delimiter: str
    has_header: bool


class CsvSource(Source):
    """A file, or every .csv and .tsv file below a folder, with the same header or without one."""

    def __init__(self, source: str, reading: ReadingSpec, trained: Mapping[str, str] = {}) -> None:
        self._path = Path(source)
        self._reading = reading
        self._trained = trained

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
                types, exceptions = decided(self._layout.names, sample.counts, as_text)
            else:
                types, exceptions = infer(self._path, texts, reason, as_text)
        return self._of_types(texts, reason, types, exceptions)

    def hint(self) -> str | None:
        return NO_HEADER if self.is_unnamed else None

    def raw(self, spark: SparkSession, contract: Contract, reason: str) -> DataFrame:
        """The table for a model of this contract; `reason` is a column of it where a row is bad.

        What could be written in two forms is in the model's own.

        Bad is a record of another number of fields, and one with a value that is not of the type that the
        model knows its column by, if that column has but a few.

        Raises:
            DataError: More than a few records have another number of fields.
        """
        forms = {column.name: column.form for column in contract.columns if column.form is not None}
        return CsvSource(str(self._path), self._reading, forms)._for_model(spark, contract, reason)

    def _for_model(self, spark: SparkSession, contract: Contract, reason: str) -> DataFrame:
        as_text = {column.name for column in contract.columns if column.type == "string"}
        self.check()
        with spark_failures(f"{self._path} cannot be read as CSV"):
            texts = self.in_form(self._texts(spark, reason, self._text), self.forms.keys() - as_text)
            seen = counted(self._path, texts, reason, as_text)
            if seen.bad > QUARANTINE_LIMIT * seen.rows:
                raise too_many_bad(self._path, seen.bad, seen.rows, seen.example)
            types = dict.fromkeys(as_text, "string") | {
                name: narrowest(count) if count.any() else EMPTY for name, count in seen.counts.items()
            }
            few = {
                column.name: but_a_few(seen.counts[column.name], SERVING[column.type], seen.rows)
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

        columns = [typed(name, types[name], is_mixed=name in exceptions) for name in self.columns()]
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
        types, exceptions = decided(self._layout.names, sample.counts, frozenset())
        found = dict(zip(self._layout.names, sample.counts, strict=True))
        unsure = {name: seen for name, seen in found.items() if types[name] == "string" and seen.any()}
        if exceptions or not all(surely_text(seen, SPREAD * int(seen.sum())) for seen in unsure.values()):
            return None

        def holds(profile: Profile, aside: int) -> bool:
            values = {each.name: profile.rows - each.nulls + aside for each in profile.columns}
            return all(surely_text(seen, values.get(name, aside)) for name, seen in unsure.items())

        def frame(spark: SparkSession, reason: str) -> DataFrame:
            texts = self._texts(spark, reason, self._text)
            columns = [typed(name, types[name]) for name in self.columns()]
            return texts.selectExpr(*columns, quoted(reason)).withColumn(reason, self._why_bad(reason, {}))

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
            wrong.append(sf.when(sf.expr(f"NOT {is_missing(name)} AND NOT ({fits(name, kind)})"), what))
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
