"""Sources of tables: `sklearn:NAME`, files and folders of text, Parquet and ORC, here or elsewhere.

A new kind of source is one new file and one line in `READERS`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ml_platform.data.declared import as_text, declared, declared_types, texts_of, typed_as
from ml_platform.data.direct import DirectRead
from ml_platform.data.files import suffixes_below
from ml_platform.data.remote import fetched
from ml_platform.data.schema_file import check_schema, read_schema
from ml_platform.data.source import Source
from ml_platform.data.text_files import open_bytes
from ml_platform.errors import DataError, SpecError, nearest
from ml_platform.specs.contracts import ColumnType, Contract, serves
from ml_platform.specs.registry import load_named
from ml_platform.specs.schemas import TableSchema
from ml_platform.specs.sources import ReadingSpec
from ml_platform.store.datasets import FORM
from ml_platform.store.manifest import DataFile
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

READERS: Mapping[str, str] = {
    "sklearn": "ml_platform.data.sklearn_source:SklearnSource",
    "csv": "ml_platform.data.csv_source:CsvSource",
    "json": "ml_platform.data.json_source:JsonSource",
    "parquet": "ml_platform.data.parquet_source:ParquetSource",
    "orc": "ml_platform.data.orc_source:OrcSource",
}
"""Kinds of sources by name. Imported on first use."""

KINDS: Mapping[str, str] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".orc": "orc",
}
"""Kinds by the end of a file's name."""

OF_TEXT = dict.fromkeys(("delimiter", "encoding", "header", "has_header"), ("csv",))
"""What `ReadingSpec` says of some kinds alone."""
TEXT = {"csv", "json"}
"""Kinds whose files may be compressed: .csv.gz."""

REASON = "_reason"
"""Name of the column that says why a row is bad; more underscores where a table has such a column."""

MAGIC: Mapping[bytes, str] = {b"PAR1": "parquet", b"ORC": "orc"}
"""Kinds by how a file begins."""


def open_source(source: str, reading: ReadingSpec = ReadingSpec()) -> Source:
    """What can read `source`.

    Raises:
        DataError: There is no such file, or it is of no known kind.
        SpecError: `source` names a kind that does not exist, or `reading` says what its kind does not have.
    """
    bundled = source.startswith("sklearn:")
    path = None if bundled else _path(source)
    kind = "sklearn" if path is None else reading.kind or _kind(path)
    for name, kinds in OF_TEXT.items():
        if getattr(reading, name) not in (None, ()) and kind not in kinds:
            raise SpecError(
                f"{source} has no {name} to be given", wanted=f"a file of kind {', '.join(kinds)}", got=kind
            )
    reader: type[Source] = load_named(READERS[kind])
    return reader(source.removeprefix("sklearn:") if path is None else str(path), reading)


def source_columns(source: str, reading: ReadingSpec = ReadingSpec()) -> tuple[str, ...]:
    """Column names of a source, without Spark. Raises as `open_source` does."""
    return open_source(source, reading).columns()


def source_types(
    source: str, reading: ReadingSpec = ReadingSpec(), schema: TableSchema | None = None
) -> dict[str, ColumnType]:
    """Types that columns of a source have or will have, without Spark; those that must be found out lack."""
    said = {} if schema is None else declared_types(schema)
    return {**open_source(source, reading).types(), **said}


def read_source(
    spark: SparkSession,
    source: str,
    label: str | None,
    schema: TableSchema | None = None,
    reading: ReadingSpec = ReadingSpec(),
) -> tuple[DataFrame, str]:
    """The table at `source`, and the name of its last column, which says why a row is bad or is null.

    Raises:
        DataError: It is missing, empty or corrupt, or a column cannot be of its declared type.
        SpecError: It has no column `label`, or `source` or `schema` names what does not exist.
    """
    opened, reason = _opened(source, label, schema, reading)
    with spark_failures(f"{source} cannot be read"):
        frame = _in_form(opened, opened.frame(spark, reason, as_text(schema)), schema)
        judged = frame if reason in frame.columns else _without_bad_rows(frame, reason)
        return _with_forms(opened, declared(judged, reason, schema, source)), reason


def direct_read(
    source: str, label: str, schema: TableSchema | None, reading: ReadingSpec, least: int
) -> tuple[DirectRead, str] | None:
    """What `read_source` gives, as pieces that Spark tasks read by themselves: at least so many, where it is
    large. None where it costs no less, or where nobody but Spark can tell what the rows are.

    Raises:
        DataError: It is missing, empty or corrupt.
        SpecError: It has no column `label`, or `source` names what does not exist.
    """
    opened, reason = _opened(source, label, schema, reading)
    read = None if schema is not None else opened.direct(least)
    return None if read is None else (read, reason)


def _opened(
    source: str, label: str | None, schema: TableSchema | None, reading: ReadingSpec
) -> tuple[Source, str]:
    """A source that has what is asked for, and a name for the column of reasons."""
    opened = open_source(source, reading)
    check_names(opened, source, label)
    check_schema(schema, source, opened.columns(), label)
    return opened, _reason_beside(opened.columns())


def _reason_beside(columns: Sequence[str]) -> str:
    """A name for the column of reasons that no other has."""
    reason = REASON
    while reason.lower() in {name.lower() for name in columns}:
        reason = f"_{reason}"
    return reason


def _in_form(opened: Source, frame: DataFrame, schema: TableSchema | None) -> DataFrame:
    """Declared columns come as they are written; those that are no text are to be read."""
    if schema is None:
        return frame
    return opened.in_form(frame, {name for name, kind in declared_types(schema).items() if kind != "string"})


def _with_forms(opened: Source, frame: DataFrame) -> DataFrame:
    """Columns say how they were written: a model reads a later table the same way."""
    for name, form in opened.forms.items():
        if name in frame.columns and frame.schema[name].dataType.typeName() != "string":
            frame = frame.withMetadata(name, {FORM: form})
    return frame


def _without_bad_rows(frame: DataFrame, reason: str) -> DataFrame:
    import pyspark.sql.functions as sf

    return frame.withColumn(reason, sf.lit(None).cast("string"))


def read_raw(
    spark: SparkSession, source: str, contract: Contract, reading: ReadingSpec = ReadingSpec()
) -> tuple[DataFrame, str | None]:
    """The table at `source` for a model that takes this contract, and its column that says why a row is bad.

    What is text to it stays as it is written, and is written out where a file holds it as a number. A column
    without a value is of the type that the model knows. In a file of text a few rows may be bad: of another
    number of fields, or with a text where the model knows a number. Without them there is no such column.

    Raises:
        DataError: It is missing, empty or corrupt, or too many rows are bad.
    """
    texts = {column.name for column in contract.columns if column.type == "string"}
    opened = open_source(source, reading)
    reason = _reason_beside(opened.columns())
    frame = opened.raw(spark, contract, reason)
    typed = typed_as(frame, {column.name: column.type for column in contract.columns})
    return texts_of(typed, texts), reason if reason in frame.columns else None


def plain_files(
    source: str, contract: Contract, reading: ReadingSpec = ReadingSpec()
) -> tuple[DataFile, ...]:
    """The Parquet files that hold the rows of `read_raw` as they are; empty where it is anything else."""
    texts = {column.name for column in contract.columns if column.type == "string"}
    return open_source(source, reading).plain_files(texts)


def check_source(
    source: str,
    label: str | None,
    schema: TableSchema | None = None,
    reading: ReadingSpec = ReadingSpec(),
) -> None:
    """Refuse, without Spark and before anything starts, what cannot be loaded.

    Raises:
        DataError: The source is missing, empty or corrupt.
        SpecError: It has no column `label`, or `source` or `schema` names what does not exist.
    """
    opened = open_source(source, reading)
    check_names(opened, source, label)
    check_schema(schema, source, opened.columns(), label)
    opened.check()


def source_identity(source: str, reading: ReadingSpec = ReadingSpec()) -> dict[str, str]:
    """What a source holds now: part of the key of whoever reads it.

    Raises:
        DataError: It is missing or cannot be read.
    """
    return open_source(source, reading).identity()


def check_columns(
    source: str,
    label: str,
    reading: ReadingSpec,
    schema_file: str | None,
    score: str | None,
    score_reading: ReadingSpec = ReadingSpec(),
    left_out: Collection[str] = (),
) -> None:
    """Refuse, before anything starts, a table to score that lacks columns of the one to learn from, or has
    them of a type that cannot be read as theirs. Types are those that the files say.

    Args:
        left_out: Columns that the model does not read.
    Raises:
        DataError: Names what is missing, with the nearest names, and what is of another type.
        SpecError: A source, or the schema in `schema_file`, names what does not exist.
    """
    schema = read_schema(schema_file)
    if score is None:
        return
    have = source_columns(score, score_reading)
    unneeded = {label, *left_out, *(schema.dropped if schema else ())}
    lacking = [name for name in source_columns(source, reading) if name not in unneeded.union(have)]
    if lacking:
        without = f"; to learn without it: --features.drop {quote(lacking[0])}" if len(lacking) == 1 else ""
        raise DataError(
            f"{score} cannot be scored by a model of {source}",
            wanted=f"column {', '.join(map(repr, lacking))}",
            got=", ".join(have),
            hint=f"{nearest(lacking[0], have)}{without}",
        )
    # What is text to the model is written out where a file holds it as a number.
    wanted, got = source_types(source, reading, schema), source_types(score, score_reading)
    retyped = [
        name
        for name in (wanted.keys() & got.keys()) - unneeded
        if wanted[name] != "string" and not serves(got[name], wanted[name])
    ]
    if retyped:
        raise DataError(
            f"{score} cannot be scored by a model of {source}",
            wanted=", ".join(f"column {name!r} of type {wanted[name]}" for name in sorted(retyped)),
            got=", ".join(got[name] for name in sorted(retyped)),
            hint="give the columns the types that the model learns from",
        )


def check_names(opened: Source, source: str, label: str | None) -> None:
    """Refuse column names that clash, and a label that is none of them."""
    names = opened.columns()
    lower = [name.lower() for name in names]
    twice = sorted({name for name in names if lower.count(name.lower()) > 1})
    if twice:
        raise DataError(f"{source} has columns of the same name", got=", ".join(twice), hint="rename them")
    if label is not None and label not in names:
        raise SpecError(f"{source} has no column {label!r}", hint=opened.hint() or nearest(label, names))


def _path(source: str) -> Path:
    """The local path that a source names, or where a copy of it lies. It exists."""
    scheme = urlsplit(source).scheme if "://" in source else ""
    if scheme not in {"", "file"}:
        return fetched(source)
    path = Path(unquote(urlsplit(source).path) if scheme else source).expanduser().absolute()
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"there is no file {source}",
            got=f"nothing at {path}",
            hint=nearest(path.name, beside) if beside else f"there is no folder {path.parent} either",
        )
    return path


def _kind(path: Path) -> str:
    if path.is_dir():
        return _kind_of_folder(path)
    plain = path.name.lower().removesuffix(".gz")
    compressed = plain != path.name.lower()
    kind = KINDS.get(Path(plain).suffix)
    if kind is not None and (kind in TEXT or not compressed):
        return kind
    with open_bytes(path) as file:
        head = file.read(max(map(len, MAGIC)))
    found = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    if found is not None and not compressed:
        return found
    raise DataError(f"{path} is of no known kind", wanted=f"a name that ends with {', '.join(KINDS)}")


def _kind_of_folder(path: Path) -> str:
    """Of the data in it; notes beside binary files are none."""
    ends = [end for end in KINDS if end != ".txt"]
    found = {KINDS[end] for end in suffixes_below(path).intersection(ends)}
    found = found - TEXT or found
    if not found:
        raise DataError(f"folder {path} holds no data", wanted=f"files that end with {', '.join(ends)}")
    if len(found) > 1:
        raise DataError(
            f"folder {path} holds files of several kinds",
            wanted="one kind",
            got=", ".join(sorted(found)),
            hint="name the folder of one of them, or --reading.kind",
        )
    return next(iter(found))
