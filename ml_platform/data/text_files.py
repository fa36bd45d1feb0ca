"""Text files, compressed or not, and what their bytes stand for."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ml_platform.data.text_types import QUARANTINE_LIMIT
from ml_platform.errors import DataError

HEAD_BYTES = 1 << 20
CHUNK_BYTES = 1 << 22
UTF8, UTF16 = "utf-8", "utf-16"
MARKS = {codecs.BOM_UTF16_LE: UTF16, codecs.BOM_UTF16_BE: UTF16}
WESTERN, LATIN1 = "cp1252", "iso8859-1"
"""What text that is not UTF-8 is taken for; the second where it holds bytes that the first lacks."""
NOT_WESTERN = b"\x81\x8d\x8f\x90\x9d"


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file; of what is in it where its name ends with .gz.

    Raises:
        DataError: It cannot be read, or the compressed file is not whole.
    """
    try:
        compressed = path.suffix.lower() == ".gz"
        with cast("BinaryIO", gzip.open(path)) if compressed else path.open("rb") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        hint = "was it cut off while it was copied?"
        raise DataError(f"{path} is not a whole gzip file", got=error, hint=hint) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read", got=error) from error


@dataclass(frozen=True)
class Text:
    """What was found out about a file."""

    encoding: str
    has_quotes: bool
    is_ascii: bool
    breaks_in_quotes: bool = False
    """A line may end inside of quotes: then a record is more than a line."""


def read_head(path: Path, encoding: str | None = None) -> str:
    """The beginning of a file. A file that is not UTF-8 is read as western text where it begins so.

    Raises:
        DataError: It is no text, or not of this encoding.
    """
    with open_bytes(path) as file:
        content = file.read(HEAD_BYTES)
    encoding = encoding or MARKS.get(content[:2])
    if encoding is None or encoding == UTF8:
        if b"\0" in content:
            raise _not_text(path, content.index(0))
        try:
            return codecs.getincrementaldecoder("utf-8-sig")().decode(content)
        except UnicodeDecodeError as error:
            if encoding is not None or not content[: error.start].isascii():
                raise _not_encoded(path, UTF8, error.start, error) from error
            encoding = _western(content)
    try:
        return codecs.getincrementaldecoder(encoding)().decode(content).removeprefix("\ufeff")
    except UnicodeError as error:
        raise _not_encoded(path, encoding, 0, error) from error


def scan(path: Path, encoding: str | None = None) -> Text:
    """Read a whole file: its encoding, and whether there are quotes in it.

    Raises:
        DataError: There is a NUL byte, or one that is not of the encoding; or it is UTF-8 only in part. Spark
            would replace what it cannot read.
    """
    with open_bytes(path) as file:
        encoding = encoding or MARKS.get(file.read(2))
        file.seek(0)
        if encoding is not None and encoding != UTF8:
            return _scan_as(path, file, encoding)
        return _scan_bytes(path, file, is_utf8=encoding is not None)


def _scan_as(path: Path, file: BinaryIO, encoding: str) -> Text:
    decoder, quotes, position = codecs.getincrementaldecoder(encoding)(), False, 0
    try:
        while chunk := file.read(CHUNK_BYTES):
            quotes = '"' in decoder.decode(chunk) or quotes
            position += len(chunk)
        decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise _not_encoded(path, encoding, position, error) from error
    return Text(encoding, quotes, is_ascii=False, breaks_in_quotes=quotes)


def _scan_bytes(path: Path, file: BinaryIO, *, is_utf8: bool) -> Text:
    decoder, text, position = codecs.getincrementaldecoder(UTF8)(), Text(UTF8, False, True), 0
    quotes = _Quotes()
    while chunk := file.read(CHUNK_BYTES):
        if b"\0" in chunk:
            raise _not_text(path, position + chunk.index(0))
        if text.encoding == UTF8:
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                if is_utf8 or not (text.is_ascii and chunk[: error.start].isascii()):
                    raise _not_encoded(path, UTF8, position + error.start, error) from error
                text = replace(text, encoding=WESTERN)
        if text.encoding == WESTERN:
            text = replace(text, encoding=_western(chunk))
        quotes.add(chunk)
        text = replace(text, is_ascii=text.is_ascii and chunk.isascii())
        position += len(chunk)
    try:
        decoder.decode(b"", final=text.encoding == UTF8)
    except UnicodeDecodeError as error:
        raise _not_encoded(path, UTF8, position, error) from error
    return replace(text, has_quotes=quotes.are_there, breaks_in_quotes=quotes.hold_breaks or quotes.is_open)


class _Quotes:
    """Whether a line ends inside of quotes: where an odd number of them stands before its end."""

    def __init__(self) -> None:
        self.are_there = self.hold_breaks = self.is_open = False

    def add(self, chunk: bytes) -> None:
        self.are_there = self.are_there or b'"' in chunk
        if not self.are_there or self.hold_breaks:
            return
        content = np.frombuffer(chunk, np.uint8)
        odd = (np.cumsum(content == ord('"'), dtype=np.uint8) + np.uint8(self.is_open)) & 1
        self.hold_breaks = bool(odd[(content == ord("\n")) | (content == ord("\r"))].any())
        self.is_open = bool(odd[-1])


def _western(content: bytes) -> str:
    return LATIN1 if any(byte in content for byte in NOT_WESTERN) else WESTERN


def _not_text(path: Path, position: int) -> DataError:
    return DataError(
        f"{path} is not text",
        got=f"a NUL byte at {position}",
        hint="was it cut off while it was written? if it is UTF-16: --reading.encoding utf-16-le",
    )


def _not_encoded(path: Path, encoding: str, position: int, error: UnicodeError) -> DataError:
    byte = f"byte 0x{error.object[error.start]:02x}" if isinstance(error, UnicodeDecodeError) else str(error)
    return DataError(
        f"{path} is not {encoding.upper()} text",
        got=f"{byte} near position {position}",
        hint="name its encoding: --reading.encoding, such as cp1252",
    )


def too_many_bad(path: Path, bad: int, rows: int, example: str | None) -> DataError:
    """The error of a table of which too little can be read."""
    return DataError(
        f"{path}: too many rows are bad",
        wanted=f"at most {QUARANTINE_LIMIT:.0%} of {rows} rows",
        got=f"{bad} rows ({bad / rows:.1%})",
        evidence=example,
        hint="repair the file, or remove these rows from it",
    )
