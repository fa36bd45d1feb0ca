"""What local files hold, as digests; a file that has not changed is not read again.

A digest is remembered by path, size, times and inode of the file. One that was changed less than two
seconds before is read again: a second change may carry the same times.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from ml_platform.errors import StoreError
from ml_platform.store.atomic import write_atomically
from ml_platform.store.digests import file_digest
from ml_platform.store.location import home

YOUNG_S = 2.0
KEPT_FILES = 10_000


def content_digests(paths: Iterable[Path]) -> dict[str, str]:
    """sha256 of each file, by its path as given.

    Raises:
        StoreError: A file cannot be read.
    """
    known = _read()
    found, changed = {}, False
    for path in paths:
        real = str(path.resolve())
        facts = _facts(path)
        remembered = known.get(real)
        if remembered is None or remembered[:-1] != facts or _is_young(facts):
            remembered = known[real] = [*facts, file_digest(path)]
            changed = True
        found[str(path)] = remembered[-1]
    if changed:
        _write(known)
    return found


def _facts(path: Path) -> list[str]:
    try:
        facts = path.stat()
    except OSError as error:
        raise StoreError(f"{path} cannot be read", got=f"{type(error).__name__}: {error.strerror}") from error
    return [str(value) for value in (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)]


def _is_young(facts: list[str]) -> bool:
    """Also true of a time in the future: somebody moved the clock."""
    changed_s = max(int(facts[1]), int(facts[2])) / 1e9
    return time.time() - changed_s < YOUNG_S


def _path() -> Path:
    return home() / "contents.json"


def _read() -> dict[str, list[str]]:
    """Empty when what lies there cannot be read, or is something else."""
    # Not a constant of the module: it has no identity, and whoever reaches it could not be cached.
    known: TypeAdapter[dict[str, list[str]]] = TypeAdapter(
        dict[str, Annotated[list[str], Field(min_length=5, max_length=5)]]
    )
    try:
        return known.validate_json(_path().read_bytes())
    except (OSError, ValueError):
        return {}


def _write(known: dict[str, list[str]]) -> None:
    """Without it, files are read again."""
    kept = dict(list(known.items())[-KEPT_FILES:])
    with suppress(OSError):
        write_atomically(_path(), json.dumps(kept).encode())
