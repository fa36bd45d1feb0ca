"""Pieces of CSV files, spread over them, and what the values in them are: no Spark, and no pass over all.

Only files where no quotes hold a line break: there a line is a record, wherever one begins to read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from ml_platform.data.text_types import KINDS, kind_counts

WHOLE_BYTES = 1 << 20
"""Files of so many bytes, all of them together, are looked at to their end."""
PIECE_BYTES = 1 << 18
SPREAD = 32
STEP_BYTES = SPREAD * PIECE_BYTES
"""From one piece to the next: together they are a part in `SPREAD` of a large file."""
BLANK = "".join(map(chr, range(33)))
"""What Spark takes for white space."""
MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Sample:
    """What values of each column were seen.

    Attributes:
        counts: Of each column, in order, the values of each of `KINDS`. Shape (columns, 6).
        is_whole: Nothing else is in the files.
    """

    counts: NDArray[np.int64]
    is_whole: bool


def take_sample(
    files: Sequence[Path],
    *,
    delimiter: str,
    encoding: str,
    columns: int,
    has_header: bool,
    has_quotes: bool = False,
) -> Sample:
    """Look at the beginning of each file and at pieces of it.

    Args:
        encoding: One in which a line break and the delimiter are a byte each, and no byte of another letter.
        columns: Fields of a record; records of another number are passed over, as Spark does.
        has_header: The first line of each file is none of its records.
    """
    counts = np.zeros((columns, len(KINDS)), np.int64)
    sizes = {file: file.stat().st_size for file in files}
    is_whole = sum(sizes.values()) <= WHOLE_BYTES
    for file, size in sizes.items():
        with file.open("rb") as opened:
            for lines in _pieces(opened, size, WHOLE_BYTES if is_whole else PIECE_BYTES, has_header):
                content = b"\n".join(lines).decode(encoding).encode()
                counts += _counted(content, columns, delimiter, has_quotes)
    return Sample(counts, is_whole=is_whole)


def _pieces(file: BinaryIO, size: int, length: int, has_header: bool) -> Iterator[list[bytes]]:
    """Whole lines of each piece that hold anything."""
    for start in range(0, size, STEP_BYTES):
        file.seek(start)
        piece = file.read(length)
        lines = piece.removeprefix(MARK if start == 0 else b"").splitlines()
        # Nobody knows where the first line of a piece began, nor where its last one ends.
        whole = lines[1 if start else 0 : None if start + len(piece) >= size else -1]
        filled = [line for line in whole if line.strip(BLANK.encode())]
        yield filled[1:] if has_header and start == 0 else filled


def text_columns(
    content: bytes, *, columns: int, delimiter: str, has_quotes: bool, at_once: int, bad: list[str]
) -> Iterator[pa.RecordBatch]:
    """Records in UTF-8 as columns of texts; an empty one is null.

    Args:
        columns: Fields of a record. Others are passed over, and put into `bad`.
        at_once: Bytes of a batch, and of the longest record.
    Raises:
        pa.ArrowInvalid: There are no records in it.
    """

    def passed_over(record: csv.InvalidRow) -> str:
        bad.append(record.text or "")
        return "skip"

    names = [str(at) for at in range(columns)]
    yield from csv.open_csv(
        pa.BufferReader(content),
        csv.ReadOptions(use_threads=False, block_size=at_once, column_names=names),
        csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if has_quotes else False,
            double_quote=has_quotes,
            invalid_row_handler=passed_over,
        ),
        csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def _counted(content: bytes, columns: int, delimiter: str, has_quotes: bool) -> NDArray[np.int64]:
    counts = np.zeros((columns, len(KINDS)), np.int64)
    try:
        for batch in text_columns(
            content,
            columns=columns,
            delimiter=delimiter,
            has_quotes=has_quotes,
            at_once=len(content) + 1,
            bad=[],
        ):
            counts += np.stack([kind_counts(pc.utf8_trim(texts, BLANK)) for texts in batch.columns])
    except pa.ArrowInvalid:
        # Other pieces tell enough.
        return counts
    return counts
