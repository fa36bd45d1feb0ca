"""Files that carry locks. The kernel lets go when the process ends, however that ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ml_platform.errors import StoreError
from ml_platform.store.location import home


@contextmanager
def lock_file(name: str) -> Iterator[int]:
    """Descriptor of a file in `home()`; its locks end with the block.

    Raises:
        StoreError: It cannot be opened.
    """
    path = home() / name
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the lock file {path} cannot be opened", got=error) from error
    try:
        yield file
    finally:
        os.close(file)
