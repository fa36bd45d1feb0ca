"""Text files, compressed or not."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from ml_platform.errors import DataError


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
