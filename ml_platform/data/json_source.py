"""JSON lines: one object per line, its keys are columns. Types come from every line."""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.data.declared import declared
from ml_platform.data.files import base_folder, data_files, named_digests, partition_names
from ml_platform.data.source import Source
from ml_platform.data.text_files import open_bytes, too_many_bad
from ml_platform.data.text_types import EXCEPTIONS, PATTERNS, QUARANTINE_LIMIT
from ml_platform.errors import DataError
from ml_platform.specs.contracts import ColumnType, Contract
from ml_platform.specs.schemas import TableSchema
from ml_platform.specs.sources import ReadingSpec
from ml_platform.store.folders import spark_path
from ml_platform.store.spark_failures import spark_failures
from ml_platform.store.sql import quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession

SUFFIXES = (".jsonl", ".ndjson", ".json")
VALUE, REASON = "value", "_reason"
LONGEST = 1 << 63
SHOWN = 120
PATTERNS_OF_TEXT = {kind: re.compile(PATTERNS[kind]) for kind in ("date", "timestamp")}

TYPES = {
    "bigint": {"integer"},
    "double": {"integer", "float"},
    "boolean": {"boolean"},
    "date": {"date"},
    "timestamp": {"date", "timestamp"},
}
"""Kinds of values that a column of each type may mix, narrowest first."""

NAMES: Mapping[str, ColumnType] = {
    "bigint": "integer",
    "double": "float",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
}
WORDS = {
    "integer": "numbers",
    "float": "numbers",
    "boolean": "truth values",
    "date": "dates",
    "timestamp": "moments",
    "text": "texts",
}
"""What a person calls kinds of values."""

SERVING: Mapping[ColumnType, Set[str]] = {
    **dict.fromkeys(("integer", "float", "decimal"), TYPES["double"]),
    "boolean": TYPES["boolean"],
    "date": TYPES["date"],
    "timestamp": TYPES["timestamp"],
}
"""Kinds of values that serve a model which knows a column as one of these."""


class JsonSource(Source):
    """A file of objects, UTF-8, or every .jsonl, .ndjson and .json file below a folder, perhaps compressed.

    A key that a line lacks is null there. A line that is no object is a bad row, and so is one with a value
    that is not of the type which 99 of 100 of its column have.
    """

    def __init__(self, source: str, reading: ReadingSpec) -> None:
        self._path = Path(source)

    @cached_property
    def _files(self) -> list[Path]:
        return data_files(self._path, SUFFIXES)

    def columns(self) -> tuple[str, ...]:
        return (*self._seen, *self._partitions)

    def check(self) -> None:
        """Every line has been read for the columns already."""
        self.columns()

    def identity(self) -> dict[str, str]:
        return named_digests(self._path, self._files)

    def frame(
        self, spark: SparkSession, reason: str | None = None, as_text: Set[str] = frozenset()
    ) -> DataFrame:
        usual = {name: usual_type(kinds) for name, kinds in self._seen.items() if name not in as_text}
        typed = {name: kind for name, kind in usual.items() if kind is not None}
        if reason is None or not typed:
            return self._frame(spark, reason, as_text)
        frame = self._frame(spark, reason, as_text | typed.keys())
        return declared(frame, reason, TableSchema(columns={**typed}), str(self._path))

    def notes(self) -> tuple[str, ...]:
        return tuple(said for name, kinds in self._seen.items() if (said := _mixture(name, kinds)))

    def _frame(self, spark: SparkSession, reason: str | None, as_text: Set[str]) -> DataFrame:
        import pyspark.sql.functions as sf
        from pyspark.sql.types import StringType, StructField, StructType

        from ml_platform.store.fingerprint import mapped, named

        bad = self._bad
        if reason is None and bad is not None:
            raise bad
        strings = [StructField(f"c{at}", StringType()) for at in range(len(self.columns()) + 1)]
        names = [*self._seen, reason or REASON, *self._partitions]
        lines = spark.read.schema(
            StructType([StructField(n, StringType()) for n in (VALUE, *self._partitions)])
        )
        with spark_failures(f"{self._path} cannot be read as JSON lines"):
            read = lines.option("basePath", base_folder(self._path)).text(
                [spark_path(file.as_uri()) for file in self._files], lineSep="\n"
            )
            bytes_of_lines = read.selectExpr(f"CAST({VALUE} AS binary)", *map(quoted, self._partitions))
            nested = frozenset(name for name in as_text if "nested" in self._seen.get(name, ()))
            parse = partial(_parse, names=tuple(self._seen), nested=nested)
            frame = mapped(bytes_of_lines, parse, StructType(strings)).toDF(*names)
        kinds = {**self._seen, **{key: Counter({"text": 1}) for key in self._partitions}}
        # Of a table to score, a model knows what a column without a value is.
        typed = [
            _typed(n, {"text"} if n in as_text else seen.keys())
            if seen or n in as_text or reason is not None
            else sf.lit(None).alias(n)
            for n, seen in kinds.items()
        ]
        return frame.select(*typed, *([named(reason)] if reason is not None else []))

    def raw(self, spark: SparkSession, contract: Contract, reason: str) -> DataFrame:
        """The table for a model of this contract; `reason` is a column of it where a row is bad.

        Bad is a line that is no object, and one with a value that is not of the type that the model knows its
        column by, if that column has but a few.

        Raises:
            DataError: More than a few lines are no objects.
        """
        rows = sum(keys.rows for keys in self._keys)
        bad = sum(keys.bad_rows for keys in self._keys)
        if self._bad is not None and bad > QUARANTINE_LIMIT * rows:
            raise too_many_bad(self._path, bad, rows, str(self._bad)) from self._bad
        as_text = {column.name for column in contract.columns if column.type == "string"}
        # What a model does not read may be kept beside its predictions, as it is written.
        as_text |= {name for name, kinds in self._seen.items() if "nested" in kinds} - set(contract.names)
        known = {column.name: column.type for column in contract.columns if column.type in SERVING}
        written: dict[str, ColumnType] = {}
        exceptions = False
        for name, kinds in self._seen.items():
            if name in known and column_type(kinds.keys()) == "string":
                others = sum(kinds[kind] for kind in kinds.keys() - SERVING[known[name]])
                if others <= QUARANTINE_LIMIT * rows:
                    is_number = known[name] in ("integer", "float", "decimal")
                    written[name] = known[name] if not is_number else "float" if kinds["float"] else "integer"
                    exceptions = exceptions or others > 0
        if not bad and not exceptions:
            return self._frame(spark, None, as_text)
        frame = self._frame(spark, reason, as_text | written.keys())
        return declared(frame, reason, TableSchema(columns={**written}), str(self._path))

    @cached_property
    def _partitions(self) -> tuple[str, ...]:
        keys = partition_names(self._path, self._files[0])
        return tuple(key for key in keys if key not in self._seen)

    @property
    def _bad(self) -> DataError | None:
        """The first line that is no object."""
        return next((keys.bad for keys in self._keys if keys.bad is not None), None)

    @cached_property
    def _seen(self) -> Mapping[str, Counter[str]]:
        """Every key, in the order of its first line, with the kinds of its values."""
        seen: dict[str, Counter[str]] = {}
        for keys in self._keys:
            for name, kinds in keys.kinds.items():
                seen.setdefault(name, Counter()).update(kinds)
        if seen:
            return seen
        if self._bad is not None:
            raise self._bad
        raise DataError(f"{self._path} is empty", wanted="a JSON object per line", got="none")

    @property
    def _keys(self) -> list[Keys]:
        return [_keys(file, _version(file)) for file in self._files]


@dataclass(frozen=True)
class Keys:
    """What is in one file."""

    kinds: Mapping[str, Counter[str]]
    """How many values of a key are of which kind."""
    rows: int
    bad: DataError | None
    """Of the first line that is no object."""
    bad_rows: int


def _version(path: Path) -> tuple[int, ...]:
    try:
        now = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read", got=error) from error
    return now.st_ino, now.st_size, now.st_mtime_ns


@functools.lru_cache(maxsize=64)
def _keys(path: Path, version: tuple[int, ...]) -> Keys:
    """Read one file.

    Args:
        version: Another one is another file. Checks, loading and scoring ask alike: one reading serves all.
    """
    seen: dict[str, Counter[str]] = {}
    bad: DataError | None = None
    rows = bad_rows = 0
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                record = parsed(line)
            except ValueError as error:
                bad = bad or _refused(path, line, number, str(error))
                rows, bad_rows = rows + 1, bad_rows + 1
                continue
            rows += record is not None
            for name, value in (record or {}).items():
                kinds = seen.setdefault(name, Counter())
                if value is not None:
                    kinds[_kind(value)] += 1
    return Keys(seen, rows, bad, bad_rows)


def parsed(line: bytes, **how: Any) -> dict[str, Any] | None:
    """The object on a line; none on a line without text.

    Raises:
        ValueError: It is no object, names a key twice, or is not UTF-8.
    """
    text = line.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        return None
    record = json.loads(text.decode(), object_pairs_hook=_unique, **how)
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {type(record).__name__}")
    return record


def _parse(
    batches: Iterator[pa.RecordBatch], *, names: tuple[str, ...], nested: Set[str]
) -> Iterator[pa.RecordBatch]:
    """Lines and values of partitions in; columns as text, a reason, and values of partitions out.

    Args:
        nested: Columns whose objects and lists are wanted as they are written.
    """
    import pyarrow as pa

    for batch in batches:
        lines = batch.column(0).to_pylist()
        records, reasons, kept = [], [], []
        for at, line in enumerate(lines):
            record, reason = _record(line, nested)
            if record is not None or reason is not None:
                kept.append(at)
                records.append(record or {})
                reasons.append(reason)
        columns = [pa.array([_text(record.get(name)) for record in records], pa.string()) for name in names]
        partitions = [column.take(pa.array(kept, pa.int64())) for column in batch.columns[1:]]
        arrays = [*columns, pa.array(reasons, pa.string()), *partitions]
        yield pa.RecordBatch.from_arrays(arrays, [f"c{at}" for at in range(len(arrays))])


def _record(line: bytes, nested: Set[str]) -> tuple[dict[str, Any] | None, str | None]:
    """The object on a line, numbers as they are written; or what is wrong. Neither for a blank line."""
    try:
        record = parsed(line, parse_int=str, parse_float=str, parse_constant=str)
        if record and any(isinstance(record.get(name), dict | list) for name in nested):
            plain = parsed(line) or {}  # numbers in there stand in no quotes
            record |= {name: plain[name] for name in nested if isinstance(record.get(name), dict | list)}
        return record, None
    except ValueError:
        return None, f"a line that is no JSON object: {line[:SHOWN].decode(errors='replace').strip()}"


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _refused(path: Path, line: bytes, number: int, got: str) -> DataError:
    return DataError(
        f"{path}: line {number} is no JSON object",
        wanted='a line such as {"age": 42, "label": "yes"}',
        got=got,
        evidence=line[:SHOWN].decode(errors="replace").rstrip(),
        hint="an array of objects becomes lines by: jq -c '.[]'" if line.lstrip()[:1] == b"[" else None,
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return record


def _kind(value: Any) -> str:
    """integer, float, boolean, date, timestamp, text or nested. Digits in quotes are text."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -LONGEST <= value < LONGEST else "text"
    if isinstance(value, float):
        return "float"
    return _kind_of_text(value) if isinstance(value, str) else "nested"


def _kind_of_text(text: str) -> str:
    """JSON has no dates and times of its own."""
    for kind, pattern in PATTERNS_OF_TEXT.items():
        if pattern.match(text):
            try:
                dt.datetime.fromisoformat(text)
            except ValueError:
                return "text"
            return kind
    return "text"


def column_type(kinds: Set[str]) -> str:
    """The narrowest type of Spark that values of these kinds have.

    >>> column_type({"integer", "float"}), column_type({"integer", "text"}), column_type(set())
    ('double', 'string', 'string')
    """
    return next((kind for kind, may in TYPES.items() if kinds and kinds <= may), "string")


def usual_type(kinds: Mapping[str, int]) -> ColumnType | None:
    """The narrowest type that all values but a few have; None where all have one, or no type has so many.

    >>> usual_type({"integer": 99, "text": 1}), usual_type({"integer": 98, "text": 2}), usual_type({})
    ('integer', None, None)
    """
    if not kinds or column_type(kinds.keys()) != "string":
        return None
    enough = (1 - EXCEPTIONS) * sum(kinds.values())
    counts = {kind: sum(kinds.get(each, 0) for each in mixed) for kind, mixed in TYPES.items()}
    return next((NAMES[kind] for kind, count in counts.items() if count >= enough), None)


def _mixture(name: str, kinds: Mapping[str, int]) -> str | None:
    """Said of a column of numbers, say, that is read as text because some of its values are texts."""
    if "nested" in kinds or column_type(kinds.keys()) != "string" or usual_type(kinds) is not None:
        return None
    counts: Counter[str] = Counter()
    for kind, count in kinds.items():
        counts[WORDS[kind]] += count
    if len(counts) < 2:
        return None
    listed = " and ".join(f"{count:,} {word}" for word, count in counts.most_common())
    return f"{name!r} mixes {listed}: text, unless --schema says what it is"


def _typed(name: str, kinds: Set[str]) -> Column:
    import pyspark.sql.functions as sf

    from ml_platform.store.fingerprint import named

    if "nested" in kinds:
        return sf.array(named(name)).alias(name)  # as nested as it is, so that loading leaves it out
    kind = column_type(kinds)
    return named(name) if kind == "string" else named(name).cast(kind).alias(name)
