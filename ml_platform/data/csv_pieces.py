"""CSV files that Spark tasks read with Arrow, a range of bytes each, as types that a sample has shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.data.csv_sample import BLANK, MARK, text_columns
from ml_platform.data.direct import rows_schema, together
from ml_platform.data.text_values import all_missing, has_blank_ends, trimmed, values_of
from ml_platform.store.pieces import DoubtError

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

PIECE_BYTES = 32 << 20
BLOCK_BYTES = 4 << 20
Range = tuple[Path, int, int]
LINE_BYTES = 1 << 16
"""What is read at once to find where a line ends."""


@dataclass(frozen=True)
class CsvPieces:
    """Files of records that end where a line does.

    Attributes:
        pieces: Of each its files, and the bytes of them in which its records begin.
        types: Spark's type of each column, by name.
        unseen: Columns of which no value is known; a value is a doubt.
    """

    pieces: tuple[tuple[Range, ...], ...]
    types: Mapping[str, str]
    unseen: frozenset[str]
    delimiter: str
    encoding: str
    has_header: bool
    has_quotes: bool

    @property
    def count(self) -> int:
        return len(self.pieces)

    @cached_property
    def schema(self) -> StructType:
        return rows_schema(self.types)

    def rows(self, piece: int) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Records of another number of fields are set aside."""
        for part in self.pieces[piece]:
            yield from self._rows_of(self._content(*part))

    def _rows_of(self, content: bytes) -> Iterator[tuple[pa.RecordBatch, int]]:
        if not content:
            return
        if self.has_quotes:
            _check_quotes(content, self.delimiter)
        short: list[str] = []
        for batch in self._records(content, short):
            yield pa.RecordBatch.from_arrays([*self._typed(batch)], names=list(self.types)), len(short)
            short.clear()
        if short:
            raise DoubtError("records of another number of fields at the end")

    def _content(self, file: Path, start: int, stop: int) -> bytes:
        """The lines that begin in a range, in UTF-8."""
        with file.open("rb") as opened:
            first = 0 if start == 0 else _next_line(opened, start)
            last = _next_line(opened, stop)
            opened.seek(first)
            content = opened.read(max(0, last - first))
        if b"\r" in content and content.count(b"\r") != content.count(b"\r\n"):
            raise DoubtError("lines that end with a carriage return alone")
        if start == 0:
            content = content.removeprefix(MARK)
            content = _below_header(content) if self.has_header else content
        return content if self.encoding == "utf-8" else content.decode(self.encoding).encode()

    def _records(self, content: bytes, short: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            yield from text_columns(
                content,
                columns=len(self.types),
                delimiter=self.delimiter,
                has_quotes=self.has_quotes,
                at_once=BLOCK_BYTES,
                bad=short,
            )
        except pa.ArrowInvalid as error:
            raise DoubtError(str(error)) from error

    def _typed(self, batch: pa.RecordBatch) -> Iterator[pa.Array]:
        for column, (name, kind) in zip(batch.columns, self.types.items(), strict=True):
            texts = self._trimmed(column)
            if name in self.unseen and not all_missing(texts):
                raise DoubtError(f"a value in column {name!r}")
            yield texts if kind == "string" else values_of(texts, kind)

    def _trimmed(self, texts: pa.Array) -> pa.Array:
        """Texts as Spark has them: an empty one is none."""
        if not has_blank_ends(texts):
            return texts
        if self.has_quotes:
            raise DoubtError("white space that may stand in quotes")
        texts = trimmed(texts)
        return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def csv_pieces(files: Sequence[Path], least: int) -> tuple[tuple[Range, ...], ...]:
    """Files in at least so many pieces, where they are large enough."""
    sizes = {file: file.stat().st_size for file in files}
    length = min(PIECE_BYTES, max(1, -(-sum(sizes.values()) // least)))
    ranges = [
        (file, start, min(size, start + length))
        for file, size in sizes.items()
        for start in range(0, size, length)
    ]
    return together(((each, each[2] - each[1]) for each in ranges), length)


def _next_line(file: BinaryIO, at: int) -> int:
    """Where the first line begins that does not begin before `at`; the end of the file, else."""
    file.seek(at - 1)
    position = at - 1
    while chunk := file.read(LINE_BYTES):
        found = chunk.find(b"\n")
        if found >= 0:
            return position + found + 1
        position += len(chunk)
    return position


def _below_header(content: bytes) -> bytes:
    """What follows the first line that is not blank."""
    while content:
        line, _, content = content.partition(b"\n")
        if line.strip(BLANK.encode()):
            break
    return content


def _check_quotes(content: bytes, delimiter: str) -> None:
    """Refuse a quote that neither opens a field, nor closes one, nor is written twice in one."""
    plain = np.frombuffer(content, np.uint8)
    quotes = np.flatnonzero(plain == ord('"'))
    edges = np.frombuffer(f'{delimiter}"\r\n'.encode(), np.uint8)
    opening, closing = quotes[::2], quotes[1::2]
    before = plain[opening[opening > 0] - 1]
    after = plain[closing[closing < len(plain) - 1] + 1]
    if len(quotes) % 2 or not (np.isin(before, edges).all() and np.isin(after, edges).all()):
        raise DoubtError("quotes in the middle of a field")
