"""JSON lines: one object per line, its keys are columns. Types come from every line."""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
from collections.abc import Iterator, Mapping, Set
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.data.csv_source import PATTERNS
from ml_platform.data.text_files import open_bytes
from ml_platform.errors import DataError
from ml_platform.store.contents import content_digests
from ml_platform.store.folders import spark_path
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

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


class JsonSource:
    """One file of objects, UTF-8, perhaps compressed. A key that a line lacks is null there."""

    def __init__(self, source: str) -> None:
        self._path = Path(source)

    def columns(self) -> tuple[str, ...]:
        return tuple(self._seen)

    def check(self) -> None:
        """Every line has been read for the columns already."""
        self.columns()

    def identity(self) -> dict[str, str]:
        (digest,) = content_digests([self._path]).values()
        return {self._path.name: digest}

    def frame(
        self, spark: SparkSession, reason: str | None = None, as_text: Set[str] = frozenset()
    ) -> DataFrame:
        from pyspark.sql.types import StringType, StructField, StructType

        self.check()
        texts = StructType([StructField(name, StringType()) for name in self._seen])
        with spark_failures(f"{self._path} cannot be read as JSON lines"):
            reader = spark.read.schema(texts).options(mode="FAILFAST", encoding="UTF-8")
            frame = reader.json(spark_path(self._path.as_uri()))
        return frame.select(
            [_typed(name, {"text"} if name in as_text else kinds) for name, kinds in self._seen.items()]
        )

    @cached_property
    def _seen(self) -> Mapping[str, Set[str]]:
        try:
            now = self._path.stat()
        except OSError as error:
            raise DataError(f"{self._path} cannot be read", got=error) from error
        return _keys(self._path, (now.st_ino, now.st_size, now.st_mtime_ns))


@functools.lru_cache(maxsize=8)
def _keys(path: Path, version: tuple[int, ...]) -> Mapping[str, Set[str]]:
    """Every key, in the order of its first line, with the kinds of its values.

    Args:
        version: Another one is another file. Checks, loading and scoring ask alike: one reading serves all.
    """
    seen: dict[str, set[str]] = {}
    for record in _records(path):
        for name, value in record.items():
            kinds = seen.setdefault(name, set())
            if value is not None:
                kinds.add(_kind(value))
    if not seen:
        raise DataError(f"{path} is empty", wanted="a JSON object per line", got="none")
    return seen


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                yield _record(path, text, number)


def _record(path: Path, line: bytes, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line.decode(), object_pairs_hook=_unique)
    except ValueError as error:  # also what is not UTF-8, and what names a key twice
        raise _refused(path, line, number, str(error)) from error
    if not isinstance(record, dict):
        raise _refused(path, line, number, f"a JSON {type(record).__name__}")
    return record


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


def _typed(name: str, kinds: Set[str]) -> Column:
    import pyspark.sql.functions as sf

    from ml_platform.store.fingerprint import named

    if "nested" in kinds:
        return sf.array(named(name)).alias(name)  # as nested as it is, so that loading leaves it out
    kind = column_type(kinds)
    return named(name) if kind == "string" else named(name).cast(kind).alias(name)
