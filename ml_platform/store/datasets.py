"""Data sets written by Spark: one pass that fingerprints, writes and then commits.

Reading needs no Spark and lies in `ml_platform.store.manifest`; its names are here too.
"""

from __future__ import annotations

import base64
import datetime as dt
import importlib.metadata
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ml_platform.errors import DataError, StoreError, nearest
from ml_platform.specs.contracts import Column, ColumnKind, ColumnType, Contract
from ml_platform.specs.references import Dataset
from ml_platform.store.folders import open_folder
from ml_platform.store.location import data_uri
from ml_platform.store.manifest import (
    MANIFEST,
    DataFile,
    FileEntry,
    Manifest,
    dataset_files,
    footer_rows,
    manifest_of,
    open_dataset,
    read_table,
)
from ml_platform.store.pieces import Aside, DoubtError, PieceRows, Pieces, fingerprint_of
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, Row, SparkSession
    from pyspark.sql.types import StructType

__all__ = [
    "DataFile",
    "dataset_files",
    "open_dataset",
    "read_table",
    "remove_dataset",
    "removed_on_failure",
    "spark_frame",
    "write_dataset",
    "write_pieces",
]

COLUMN_TYPES: dict[str, ColumnType] = {
    "byte": "integer",
    "short": "integer",
    "integer": "integer",
    "long": "integer",
    "float": "float",
    "double": "float",
    "decimal": "decimal",
    "boolean": "boolean",
    "string": "string",
    "date": "date",
    "timestamp": "timestamp",
    "timestamp_ntz": "timestamp",
    "binary": "binary",
    "array": "list",
    "map": "map",
}
"""Our types by the names of Spark's. What is missing here cannot be stored."""
PART_SCHEMA = (
    "partition int, file string, rows bigint, bytes bigint, checksum string, holes binary, sketch binary, "
    "aside bigint, doubt string"
)
"""`holes`: whether each column has a null in the file, a byte per column. Without rows there is no file."""
FLOAT32_BYTES = 4
KIND, FORM = "kind", "form"
"""Key of a column's kind in the metadata of its Spark field: it survives selects and filters."""


class Sketch(Protocol):
    """What one Spark task finds out about the rows that it writes."""

    def add(self, batch: pa.RecordBatch) -> None:
        """Look at some rows. Columns are those of the frame, in order; their names are not."""

    def state(self) -> bytes: ...


class Surveyor(Protocol):
    """Looks at rows on their way into a data set, at the cost of no further pass."""

    def sketch(self) -> Sketch:
        """A new one, in a Spark task."""

    def kinds(self, sketches: Sequence[bytes]) -> Mapping[str, ColumnKind]:
        """What the columns are, from the sketches of all tasks. Called once, in this process."""


def write_dataset(
    frame: DataFrame,
    *,
    name: str,
    label: str | None = None,
    packed: Mapping[str, int] | None = None,
    surveyor: Surveyor | None = None,
) -> Dataset:
    """Write a frame as a new data set, in one Spark job: all of it, or nothing.

    Args:
        name: What it is; names the folder above its own.
        label: The contract's label column.
        packed: Binary columns that hold this many little-endian float32 values per row; they are
            stored with a fixed size, so that readers view them in place.
        surveyor: Says what the columns are. Without one a column stays what it was where it was read from.
    Raises:
        DataError: Column names that differ by case at most, a type that cannot be stored, or a value that
            does not fit its column.
        StoreError: The store cannot be written, or the job failed. Nothing is left behind.
    """
    job = partial(_observe_and_write, frame)
    return _written(frame.schema, job, name, label, packed or {}, surveyor)[0]


def write_pieces(
    spark: SparkSession, pieces: Pieces, *, name: str, label: str, surveyor: Surveyor
) -> tuple[Dataset, int]:
    """Write a table that Spark tasks read by themselves as a new data set: all of it, or nothing.

    Returns:
        The data set, and how many rows were set aside.
    Raises:
        DoubtError: The table is not what its schema says. Nothing is left behind.
        DataError: As `write_dataset`.
        StoreError: As `write_dataset`.
    """
    return _written(pieces.schema, partial(_read_and_write, spark, pieces), name, label, {}, surveyor)


def _written(
    rows: StructType,
    job: Callable[..., tuple[dict[str, Any], list[Row]]],
    name: str,
    label: str | None,
    packed: Mapping[str, int],
    surveyor: Surveyor | None,
) -> tuple[Dataset, int]:
    """A job's files as a data set, and how many rows it set aside."""
    _check_columns(rows, name, label, packed)
    folder = open_folder(f"{data_uri()}/{name}/{uuid.uuid4().hex}")
    schema = _file_schema(rows, packed)
    try:
        with folder.staged() as staged:
            write = _PartWriter(staged, schema.serialize().to_pybytes(), surveyor)
            with spark_failures(f"data set {name!r} was not written"):
                observed, tasks = job(staged, write)
            parts = sorted((each for each in tasks if each.file), key=lambda part: part.partition)
            _check_count(name, observed["rows"], staged, parts)
            kinds = surveyor.kinds([part.sketch for part in parts]) if surveyor is not None else {}
            spark_schema = _with_kinds(rows, kinds)
            names = folder.publish(staged, {part.file: _final_name(part) for part in parts})
            contract = _contract(spark_schema, _holes(parts), label, packed)
            files = tuple(_entry(part, names[part.file]) for part in parts)
            manifest = _manifest(contract, spark_schema, schema, observed, files)
            folder.write_last(MANIFEST, manifest.model_dump_json(indent=1).encode())
    except OSError as error:
        raise StoreError(
            f"data set {name!r} cannot be written to {data_uri()}",
            got=f"{type(error).__name__}: {error.strerror or error}",
            hint="free some space there, or name a folder that you may write in ML_PLATFORM_STORE",
        ) from error
    return manifest.reference(folder.uri), sum(task.aside for task in tasks)


def spark_frame(spark: SparkSession, dataset: Dataset) -> DataFrame:
    """Exactly the files that the manifest lists, with the types that were written.

    Raises:
        StoreError: The data set or one of its files is not what was written.
    """
    from pyspark.sql.types import StructType

    from ml_platform.store.spark_files import frame_of

    manifest = manifest_of(dataset)
    return frame_of(spark, dataset_files(dataset), StructType.fromJson(manifest.spark_schema))


def remove_dataset(dataset: Dataset) -> None:
    """Remove a data set that nobody refers to: one that was found wanting right after it was written."""
    open_folder(dataset.uri).remove()


@contextmanager
def removed_on_failure() -> Iterator[list[Dataset]]:
    """Data sets that are put into the list inside go when the block fails: nobody would refer to them."""
    written: list[Dataset] = []
    try:
        yield written
    except BaseException:
        for dataset in written:
            remove_dataset(dataset)
        raise


def _check_columns(schema: StructType, name: str, label: str | None, packed: Mapping[str, int]) -> None:
    known = [field.name for field in schema.fields]
    counts = Counter(column.lower() for column in known)
    twice = sorted({column for column in known if counts[column.lower()] > 1})
    if twice:
        raise DataError(f"data set {name!r} would have columns of the same name", got=", ".join(twice))
    for wanted in [*packed, *([label] if label is not None else [])]:
        if wanted not in known:
            raise DataError(f"data set {name!r} has no column {wanted!r}", hint=nearest(wanted, known))
    for field in schema.fields:
        if field.dataType.typeName() not in COLUMN_TYPES:
            raise DataError(
                f"data set {name!r} cannot store column {field.name!r}",
                wanted=", ".join(sorted(set(COLUMN_TYPES.values()))),
                got=field.dataType.simpleString(),
            )


def _file_schema(schema: StructType, packed: Mapping[str, int]) -> pa.Schema:
    import pyarrow as pa
    from pyspark.sql.pandas.types import to_arrow_schema

    plain = to_arrow_schema(schema, timezone="UTC")
    fixed = {name: pa.binary(FLOAT32_BYTES * width) for name, width in packed.items()}
    return pa.schema([pa.field(f.name, fixed.get(f.name, f.type), nullable=True) for f in plain])


def _with_kinds(schema: StructType, kinds: Mapping[str, ColumnKind]) -> StructType:
    from pyspark.sql.types import StructField, StructType

    return StructType(
        [
            StructField(
                field.name,
                field.dataType,
                field.nullable,
                {**(field.metadata or {}), **({KIND: kinds[field.name]} if field.name in kinds else {})},
            )
            for field in schema.fields
        ]
    )


def _observe_and_write(frame: DataFrame, staged: str, write: _PartWriter) -> tuple[dict[str, Any], list[Row]]:
    """One job: rows are observed, then written. Returns what was observed, and a row per task."""
    from pyspark.sql import Observation

    from ml_platform.store.fingerprint import mapped, observed

    observation = Observation()
    # The last operator before the write: above a sort, or above a shuffle that is run again, it would
    # count rows twice.
    tasks = mapped(observed(frame, observation), write, PART_SCHEMA).collect()
    return observation.get, tasks


def _read_and_write(
    spark: SparkSession, pieces: Pieces, staged: str, write: _PartWriter
) -> tuple[dict[str, Any], list[Row]]:
    """A job that writes, and one over what was written. Returns what the second found, and a row per task."""
    numbers = spark.range(0, pieces.count, 1, pieces.count)
    tasks = numbers.mapInArrow(write.reading(PieceRows(pieces)), PART_SCHEMA).collect()
    doubts = sorted(task.doubt for task in tasks if task.doubt)
    if doubts:
        raise DoubtError(doubts[0])
    return fingerprint_of(spark, pieces.schema, staged, [task.file for task in tasks if task.file]), tasks


class _PartWriter:
    """What each Spark task runs: its rows into one file, named after the attempt."""

    def __init__(
        self, staged: str, schema: bytes, surveyor: Surveyor | None, rows: PieceRows | None = None
    ) -> None:
        self._staged = staged
        self._schema = schema
        self._surveyor = surveyor
        self._rows = rows

    def reading(self, rows: PieceRows) -> _PartWriter:
        """The same, given numbers of pieces instead of rows."""
        return _PartWriter(self._staged, self._schema, self._surveyor, rows)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyspark import TaskContext

        from ml_platform.store.part_file import write_part

        context = TaskContext.get()
        assert context is not None
        file = f"attempt-{context.taskAttemptId()}.parquet"
        schema = pa.ipc.read_schema(pa.py_buffer(self._schema))
        sketch = self._surveyor.sketch() if self._surveyor is not None else None
        holes, aside = bytearray(len(schema)), Aside()
        rows = batches if self._rows is None else self._rows(batches, aside)
        part = write_part(_watched(rows, holes, sketch), f"{self._staged}{file}", schema)
        told: dict[str, Any] = {"partition": context.partitionId(), "aside": aside.rows, "doubt": aside.doubt}
        if part is not None:
            state = None if sketch is None else sketch.state()
            told |= {**asdict(part), "file": file, "holes": bytes(holes), "sketch": state}
        yield pa.RecordBatch.from_pylist([told], schema=_part_schema())


def _part_schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"int": pa.int32(), "bigint": pa.int64(), "string": pa.string(), "binary": pa.binary()}
    fields = (field.split() for field in PART_SCHEMA.split(", "))
    return pa.schema([(name, kinds[kind]) for name, kind in fields])


def _watched(
    batches: Iterator[pa.RecordBatch], holes: bytearray, sketch: Sketch | None
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for at, column in enumerate(batch.columns):
            holes[at] |= column.null_count > 0
        if sketch is not None:
            sketch.add(batch)
        yield batch


def _holes(parts: Sequence[Row]) -> list[bool]:
    """Whether each column has a null in any file; nothing where there are no files."""
    return [any(column) for column in zip(*(part.holes for part in parts), strict=True)]


def _check_count(name: str, observed: int, staged: str, parts: list[Row]) -> None:
    """A lost executor makes rows count twice: then the fingerprint is wrong and nothing may be committed."""
    written = sum(footer_rows(f"{staged}{part.file}") for part in parts)
    if written != observed:
        raise StoreError(
            f"data set {name!r} was not committed: its fingerprint does not cover the rows that were written",
            wanted=f"{written} rows, as in the files",
            got=f"{observed} rows observed",
            hint="an executor was probably lost; run it again",
        )


def _final_name(part: Row) -> str:
    return f"part-{part.partition:05d}.parquet"


def _entry(part: Row, name: str) -> FileEntry:
    return FileEntry(name=name, rows=part.rows, bytes=part.bytes, checksum=part.checksum)


def _manifest(
    contract: Contract,
    spark_schema: StructType,
    file_schema: pa.Schema,
    observed: Mapping[str, Any],
    files: tuple[FileEntry, ...],
) -> Manifest:
    from ml_platform.store.fingerprint import digest

    manifest = Manifest(
        contract=contract,
        rows=observed["rows"],
        files=files,
        fingerprint=digest(spark_schema, observed),
        spark_schema=spark_schema.jsonValue(),
        arrow_schema=base64.b64encode(file_schema.serialize().to_pybytes()).decode(),
        writers={package: _version(package) for package in ("ml-platform", "pyspark", "pyarrow")},
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    return manifest.sealed()


def _contract(
    schema: StructType, holes: Sequence[bool], label: str | None, packed: Mapping[str, int]
) -> Contract:
    columns = [
        Column(
            name=field.name,
            type="packed" if field.name in packed else COLUMN_TYPES[field.dataType.typeName()],
            nullable=bool(holes) and holes[at],
            width=packed.get(field.name),
            kind=(field.metadata or {}).get(KIND),
            form=(field.metadata or {}).get(FORM),
        )
        for at, field in enumerate(schema.fields)
    ]
    return Contract(columns=tuple(columns), label=label)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from source"
