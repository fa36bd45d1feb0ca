"""Scoring in parts: some rows each, scored and written once, under a key that says what was scored with what.

The key is the digest of the scorer (model, kept columns, code) and of the rows. A part that lies there
already, in predictions that are replaced or from a scoring that was killed, is not scored again.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ml_platform.store.manifest import DataFile

if TYPE_CHECKING:
    import pyarrow as pa

PART_ROWS = 131_072
PART_BYTES = 64 << 20
"""A part of a frame ends at whichever comes first; it is held in a worker's memory."""
BATCH_BYTES = 8 << 20
"""Rows that are scored together have about this size."""
WHOLE = 4096
"""They are a multiple of this, so that a network seldom gets rows that only fill a batch up."""
SCHEMA = "number int, key string, rows bigint, failed bigint"

CODE = ("inference", "features", "images", "specs", "worker", "tracking/pyfunc_model.py")
"""Folders and modules of this package that decide what a prediction is."""
PACKAGES = (
    *("numpy", "pyarrow", "pandas", "keras", "tensorflow", "tensorflow-cpu", "xgboost", "xgboost-cpu"),
    *("scikit-learn", "skops", "joblib", "mlflow", "pillow"),
)
"""What they compute with, or open models and images with."""


@dataclass(frozen=True)
class Part:
    """One scored part, as its writer counted it."""

    key: str
    rows: int
    failed: int


class RowsPart(Protocol):
    """Rows that are read where they are scored, without Spark."""

    @property
    def identity(self) -> str:
        """What the rows are, as far as that is known before they are read."""

    def read(self, schema: pa.Schema) -> tuple[str, Iterable[pa.RecordBatch]]:
        """What the rows are, and the rows."""


@dataclass(frozen=True)
class FilePart:
    """Row groups of a Parquet file that nobody changes."""

    uri: str
    checksum: str
    first: int
    groups: int

    @property
    def identity(self) -> str:
        """What the rows are, wherever the file lies."""
        return f"{self.checksum} {self.first} {self.groups}"

    def read(self, schema: pa.Schema) -> tuple[str, Iterator[pa.RecordBatch]]:
        """Columns of this schema, a batch at a time. Raises StoreError where the file is not as it was."""
        return self.identity, self._rows(schema)

    def _rows(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        from ml_platform.errors import StoreError
        from ml_platform.store.parquet_files import open_parquet

        try:
            with open_parquet(self.uri, verified=True) as opened:
                groups = range(self.first, self.first + self.groups)
                size = batch_rows(opened.metadata, self.first)
                for batch in opened.iter_batches(size, row_groups=[*groups], columns=schema.names):
                    yield batch.select(schema.names).cast(schema)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{self.uri} cannot be read", wanted="the file as it was", got=error) from error


class Scorer(Protocol):
    """What scores batches on executors."""

    @property
    def imports(self) -> tuple[str, ...]:
        """Modules that it needs and that take long to import."""

    def open(self) -> None:
        """Get ready; raises where the model cannot be opened."""

    def score(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """The columns to write, and how many rows of them have an error. Never raises for a row."""


@dataclass(frozen=True)
class PartWriter:
    """Writes parts, on executors: a file under its key, whole or not at all."""

    scorer: Scorer
    base: str
    """Digest of what scores."""
    folder: str
    schema: bytes
    """Of the files: Arrow IPC."""

    def key(self, identity: str) -> str:
        """Of rows with this identity."""
        return hashlib.sha256(f"{self.base} {identity}".encode()).hexdigest()

    def write(self, key: str, batches: Iterable[pa.RecordBatch]) -> Part:
        """Score the rows and write them."""
        import pyarrow as pa

        from ml_platform.store.part_file import write_part

        schema = pa.ipc.read_schema(pa.py_buffer(self.schema))
        building = Path(self.folder, f".{key}-{uuid.uuid4().hex[:8]}")
        failed: list[int] = []
        written = write_part(self._scored(batches, failed), building.as_uri(), schema)
        if written is None:
            return Part(key, 0, 0)
        building.replace(Path(self.folder, file_name(key)))
        return Part(key, written.rows, sum(failed))

    def _scored(self, batches: Iterable[pa.RecordBatch], failed: list[int]) -> Iterator[pa.RecordBatch]:
        self.scorer.open()
        for batch in batches:
            scored, bad = self.scorer.score(batch)
            failed.append(bad)
            yield scored


@dataclass(frozen=True)
class FrameParts:
    """What Spark runs over a frame: its batches, gathered into parts."""

    writer: PartWriter
    finished: dict[str, Part]
    names: tuple[str, ...]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for part in gathered(batches):
            rows = [batch.rename_columns(list(self.names)) for batch in part]
            key = self.writer.key(content_digest(rows))
            yield report(self.finished.get(key) or self.writer.write(key, rows))


@dataclass(frozen=True)
class DirectParts:
    """What Spark runs over the numbers of parts that it has no part in."""

    writer: PartWriter
    finished: dict[str, Part]
    parts: tuple[RowsPart, ...]
    rows_schema: bytes
    """Of the columns to read, as a frame of the same rows has them: Arrow IPC."""

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        schema = pa.ipc.read_schema(pa.py_buffer(self.rows_schema))
        for batch in batches:
            for number in batch.column(0).to_pylist():
                identity, rows = self.parts[number].read(schema)
                key = self.writer.key(identity)
                yield report(self.finished.get(key) or self.writer.write(key, rows), number)


def file_parts(files: Sequence[DataFile]) -> tuple[FilePart, ...]:
    """Parts of whole row groups, from the files' footers.

    Raises:
        OSError, pyarrow.ArrowInvalid: A file cannot be read.
    """
    from ml_platform.store.parquet_files import open_parquet

    found = []
    for file in files:
        with open_parquet(file.uri) as opened:
            footer = opened.metadata
            sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        first = rows = 0
        for group, size in enumerate(sizes):
            if rows and rows + size > PART_ROWS:
                found.append(FilePart(file.uri, file.checksum, first, group - first))
                first, rows = group, 0
            rows += size
        if rows:
            found.append(FilePart(file.uri, file.checksum, first, len(sizes) - first))
    return tuple(found)


def gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Whole batches, as many as make a part."""
    part: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        part.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= PART_ROWS or size >= PART_BYTES:
            yield part
            part, rows, size = [], 0, 0
    if rows:
        yield part


def content_digest(batches: Iterable[pa.RecordBatch]) -> str:
    """sha256 of names, types and values in their order; what lies under a null does not count."""
    state = hashlib.sha256()
    for batch in batches:
        state.update(f"{batch.num_rows} {batch.schema.to_string()}\n".encode())
        for column in batch.columns:
            for array in (column.is_valid(), column.drop_null()) if column.null_count else (column,):
                state.update(_serialized(array))
    return state.hexdigest()


def _serialized(array: pa.Array) -> pa.Buffer:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([array], ["_"]).serialize()


def report(part: Part, number: int = 0) -> pa.RecordBatch:
    """A row of `SCHEMA`. Parts of a frame come in its own order, without a number."""
    import pyarrow as pa

    values = (number, part.key, part.rows, part.failed)
    types = (pa.int32(), pa.string(), pa.int64(), pa.int64())
    arrays = [pa.array([value], kind) for value, kind in zip(values, types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, ["number", "key", "rows", "failed"])


def file_name(key: str) -> str:
    """Of a finished part while its table is being scored."""
    return f"{key}.parquet"


def batch_rows(footer: pa.FileMetaData, group: int) -> int:
    """Rows to score together, by their size in the file."""
    about = footer.row_group(group)
    width = max(1, about.total_byte_size // max(1, about.num_rows))
    rows = int(min(PART_ROWS, max(256, BATCH_BYTES // width)))
    return rows - rows % WHOLE if rows > WHOLE else rows


def base_digest(*facts: object) -> str:
    """Digest of what scores: these facts, this package's code and the libraries behind it."""
    text = json.dumps([*facts, scoring_code()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1)
def scoring_code() -> str:
    """sha256 of the code that scores, and the versions of what it uses."""
    state = hashlib.sha256()
    root = Path(__file__).parent.parent
    for folder in CODE:
        for path in sorted((root / folder).rglob("*.py")) or [root / folder]:
            state.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode())
            state.update(path.read_bytes())
    for package in PACKAGES:
        try:
            state.update(f"{package} {version(package)}\n".encode())
        except PackageNotFoundError:
            continue
    return state.hexdigest()
