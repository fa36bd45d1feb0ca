"""Where predictions go: a folder of plain Parquet files that appears whole, or not at all."""

from __future__ import annotations

import ctypes
import glob
import json
import os
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ml_platform.errors import SpecError, StoreError
from ml_platform.specs.references import Version
from ml_platform.store import crash
from ml_platform.store.leftovers import builder, remove_dead
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from pyspark.sql import DataFrame

PARTITION = "scored_on"
"""Column by which dated predictions are kept apart; it stands in the folders' names alone."""

MARKER = "_predictions.json"
"""Written last. Says that scoring wrote the folder, and what is in it; readers of Parquet skip it."""


@dataclass(frozen=True)
class Written:
    """What was written, counted in the files' footers."""

    uri: str
    rows: int
    failed_rows: int


def check_destination(destination: str, day: date | None = None) -> None:
    """Find out before scoring whether predictions can be written; leaves nothing behind.

    Args:
        day: Predictions are added as the partition of this day. None: they replace all that is there.
    Raises:
        SpecError: It is no local path.
        StoreError: It cannot be written, or holds something that scoring did not write.
    """
    folder = local_folder(destination)
    if day is not None:
        _check_dated(folder)
        folder = partition(folder, day)
    _check_replaceable(folder)
    anchor = folder.parent
    while not anchor.exists() and anchor != anchor.parent:
        anchor = anchor.parent
    try:
        tempfile.TemporaryFile(dir=anchor).close()
    except OSError as error:
        raise StoreError(
            f"predictions cannot be written to {folder}",
            wanted=f"a folder to write in at {anchor}",
            got=f"{type(error).__name__}: {error.strerror}",
            hint="name another path",
        ) from error


def local_folder(destination: str) -> Path:
    """The absolute path that a path or a file:// URI names.

    Raises:
        SpecError: It is empty, or the URI of another kind of store.
    """
    parts = urlsplit(destination)
    if not destination.strip() or (parts.scheme not in {"", "file"} and "://" in destination):
        raise SpecError(
            f"predictions go to a local folder, not to {destination!r}",
            wanted="a path or a file:// URI",
        )
    path = unquote(parts.path) if destination.startswith("file:") else destination
    return Path(path).expanduser().absolute()


def partition(folder: Path, day: date) -> Path:
    """Where the predictions of a day lie, as Spark, pyarrow and others read partitions."""
    return folder / f"{PARTITION}={day.isoformat()}"


def write_predictions(
    scored: DataFrame, destination: str, version: Version, day: date | None = None
) -> Written:
    """Write a scored frame beside the destination, count it, then move it there.

    Args:
        day: As `check_destination`. What was scored on that day before is replaced.
    Raises:
        StoreError: It cannot be written, or the files do not hold the rows that were scored.
    """
    check_destination(destination, day)
    folder = local_folder(destination)
    if day is not None:
        folder = partition(folder, day)
    building = folder.parent / f".{folder.name}.{builder()}-{uuid.uuid4().hex[:8]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        expected = _write(scored, building)
        written = Written(folder.as_uri(), *_count(building))
        if written.rows != expected:
            raise StoreError(
                f"predictions for {folder} are incomplete", wanted=f"{expected} rows", got=written.rows
            )
        _mark(building, written, version)
        crash.point("before the predictions appear")
        _move(building, folder)
    except OSError as error:
        raise StoreError(f"predictions cannot be written to {folder}", got=error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return written


def remove_leftovers(folder: Path) -> None:
    """Remove what a scoring into this folder left beside it when it was killed."""
    remove_dead(folder.parent.glob(f".{glob.escape(folder.name)}.by-*"))


def _write(scored: DataFrame, folder: Path) -> int:
    """Write the files; returns the rows that passed by, counted on the way."""
    from pyspark.sql import (
        Observation,
        functions as F,  # noqa: N812
    )

    seen = Observation(f"scored-{uuid.uuid4().hex}")
    observed = scored.observe(seen, F.count(F.lit(1)).alias("rows"))
    with spark_failures(f"predictions for {folder.parent} were not written"):
        # Not as_uri(): Hadoop takes %20 for a part of the name.
        observed.write.option("compression", "zstd").parquet(f"file://{folder}")
    return int(seen.get["rows"])


def _count(folder: Path) -> tuple[int, int]:
    """Rows and rows without a prediction, from the footers of the folder's files."""
    import pyarrow.parquet as pq

    rows = failed = 0
    for path in sorted(folder.glob("part-*.parquet")):
        footer = pq.read_metadata(path)
        rows += footer.num_rows
        failed += _nulls(path, footer, "prediction")
    return rows, failed


def _nulls(path: Path, footer: pq.FileMetaData, name: str) -> int:
    """Nulls of a column as the footer counts them; the column is read where a row group does not say."""
    import pyarrow.parquet as pq

    names = [footer.schema.column(index).path for index in range(footer.num_columns)]
    index = names.index(name)
    groups = [footer.row_group(group).column(index).statistics for group in range(footer.num_row_groups)]
    if all(group is not None and group.has_null_count for group in groups):
        return sum(group.null_count for group in groups)
    return int(pq.read_table(path, columns=[name]).column(0).null_count)


def _mark(folder: Path, written: Written, version: Version) -> None:
    content = {
        "rows": written.rows,
        "failed_rows": written.failed_rows,
        "model_name": version.name,
        "model_version": version.version,
        "model_uri": version.model.uri,
        "model_digest": version.model.digest,
    }
    (folder / MARKER).write_text(json.dumps(content, indent=2), encoding="utf-8")


def _move(building: Path, folder: Path) -> None:
    """Put the new folder in its place. Readers find the old one or the new one, also after a kill."""
    if not folder.exists():
        building.replace(folder)
        return
    _check_replaceable(folder)
    if _exchange(building, folder):
        return
    previous = folder.parent / f"{building.name}.previous"
    folder.replace(previous)
    try:
        building.replace(folder)
    except OSError:
        previous.replace(folder)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def _exchange(building: Path, folder: Path) -> bool:
    """Let two folders change names in one step. False on file systems that cannot, NFS for one."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    names = os.fsencode(building), os.fsencode(folder)
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    return renameat2 is not None and renameat2(here, names[0], here, names[1], exchange) == 0


def _check_dated(folder: Path) -> None:
    """Predictions of a day are added to such of other days alone."""
    if folder.is_dir() and (folder / MARKER).is_file():
        raise StoreError(
            f"{folder} holds predictions without a day, so none of a day can be added",
            wanted=f"a new or empty folder, or one with {PARTITION}=… in it",
            hint="name another path, or leave out --day to replace them",
        )
    if folder.is_dir() and any(not _is_of_a_day(path) for path in folder.iterdir()):
        raise StoreError(
            f"{folder} holds something that scoring did not write; it stays as it is",
            wanted=f"a new or empty folder, or one with {PARTITION}=… in it",
            hint="name another path",
        )


def _is_of_a_day(path: Path) -> bool:
    """Also one that is being written."""
    return path.name.removeprefix(".").startswith(f"{PARTITION}=")


def _check_replaceable(folder: Path) -> None:
    """Only an empty folder or earlier predictions may be replaced."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise StoreError(
            f"{folder} is in the way of the predictions",
            wanted="a folder, or nothing",
            hint="name another path",
        )
    if any(folder.iterdir()) and all(map(_is_of_a_day, folder.iterdir())):
        raise StoreError(
            f"{folder} holds predictions of several days; they stay as they are",
            wanted=f"an empty folder, or one with {MARKER}",
            hint="name another path, or a --day to add or replace",
        )
    if any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise StoreError(
            f"{folder} holds something that scoring did not write; it stays as it is",
            wanted=f"an empty folder, or one with {MARKER}",
            hint="name another path",
        )
