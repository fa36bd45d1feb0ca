"""Where predictions go: a folder of plain Parquet files that appears whole, or not at all."""

from __future__ import annotations

import ctypes
import glob
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pydantic import Field

from ml_platform.errors import SpecError, StoreError
from ml_platform.inference.parts import Part, file_name
from ml_platform.specs.base import Spec
from ml_platform.store import crash
from ml_platform.store.leftovers import builder, is_dead

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PARTITION = "scored_on"
"""Column by which dated predictions are kept apart; it stands in the folders' names alone."""

LEFT = "left-"
"""Begins the end of the name under which finished parts of a failed scoring wait for the next one."""

FINISHED = re.compile(r"[0-9a-f]{64}\.parquet")

MARKER = "_predictions.json"
"""Written last. Says that scoring wrote the folder, and what is in it; readers of Parquet skip it."""


@dataclass(frozen=True)
class Written:
    """What was written, counted in the files' footers."""

    uri: str
    rows: int
    failed_rows: int
    reused_rows: int
    """Rows of parts that were scored before."""


@dataclass(frozen=True)
class Scored:
    """The parts of a scored table, in its order, and the columns of their files."""

    parts: tuple[Part, ...]
    schema: pa.Schema


Score = Callable[[Path, Mapping[str, Part]], Scored]


class PartEntry(Spec):
    """A part in the marker."""

    file: str = Field(pattern=r"^part-[^/]+$")
    key: str
    rows: int
    failed: int
    bytes: int
    modified_ns: int
    """When the file was last written to, as its file system has it."""


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
    score: Score, destination: str, mark: Mapping[str, object], day: date | None = None
) -> Written:
    """Score into a folder beside the destination, count what lies there, then move it to its place.

    Args:
        score: Called with the folder, and with the parts that lie in it already: those of the predictions
            that are replaced, and those that scorings finished that were killed or failed.
        mark: What scored, for the marker.
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
        building.mkdir(parents=True)
        earlier = taken_over(folder, building)
        scored = score(building, earlier)
        written = _assembled(building, folder, scored, set(earlier), mark)
        crash.point("before the predictions appear")
        _move(building, folder)
    except OSError as error:
        _leave(building, folder)
        raise StoreError(f"predictions cannot be written to {folder}", got=error) from error
    except BaseException:
        _leave(building, folder)
        raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return written


def taken_over(folder: Path, building: Path) -> dict[str, Part]:
    """Put finished parts into `building`: those of `folder`, and those that lie beside it unfinished."""
    found = {}
    for part, path in _parts_of(folder):
        if _linked(path, building / file_name(part.key)):
            found[part.key] = part
    for left in leftovers(folder):
        for path in left.glob("*.parquet"):
            key = path.stem
            if FINISHED.fullmatch(path.name) and key not in found and _linked(path, building / path.name):
                counted = _counted(building / path.name, key)
                found |= {key: counted} if counted is not None else {}
        shutil.rmtree(left, ignore_errors=True)
    return found


def leftovers(folder: Path) -> list[Path]:
    """What scorings into this folder left beside it when they failed, or were killed."""
    name = glob.escape(folder.name)
    killed = (path for path in folder.parent.glob(f".{name}.by-*") if is_dead(path.name))
    return [*killed, *folder.parent.glob(f".{name}.{LEFT}*")]


def _leave(building: Path, folder: Path) -> None:
    """Keep the parts that are finished for the next scoring into this folder."""
    if any(FINISHED.fullmatch(path.name) for path in building.glob("*.parquet")):
        with suppress(OSError):
            building.replace(folder.parent / f".{folder.name}.{LEFT}{uuid.uuid4().hex[:8]}")


def _parts_of(folder: Path) -> list[tuple[Part, Path]]:
    """The parts that a folder of predictions says it is made of, as far as they are what was written."""
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        entries = [PartEntry.model_validate(entry) for entry in content.get("parts", ())]
    except (OSError, ValueError):
        return []
    paths = [(entry, folder / entry.file) for entry in entries]
    return [
        (Part(entry.key, entry.rows, entry.failed), path)
        for entry, path in paths
        if path.is_file() and _is_as_written(path.stat(), entry)
    ]


def _is_as_written(now: os.stat_result, entry: PartEntry) -> bool:
    return (now.st_size, now.st_mtime_ns) == (entry.bytes, entry.modified_ns)


def _linked(path: Path, target: Path) -> bool:
    """Whether the same content lies at `target` now, by a link or a copy."""
    try:
        try:
            os.link(path, target)
        except FileExistsError:
            return True
        except OSError:  # a file system without links
            shutil.copyfile(path, target)
    except OSError:
        target.unlink(missing_ok=True)
        return False
    return True


def _counted(path: Path, key: str) -> Part | None:
    """The part as its footer has it; None where that cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        footer = pq.read_metadata(path)
        return Part(key, footer.num_rows, footer.num_rows - _nulls(path, footer, "error"))
    except (OSError, pa.ArrowException, ValueError):
        path.unlink(missing_ok=True)
        return None


def _assembled(
    building: Path, folder: Path, scored: Scored, earlier: set[str], mark: Mapping[str, object]
) -> Written:
    """Give the parts their names in the order of the table, count them, and say what they are."""
    import pyarrow.parquet as pq

    entries = []
    for number, part in enumerate(scored.parts):
        path = building / f"part-{number:05d}-{part.key[:16]}.parquet"
        if not _linked(building / file_name(part.key), path):
            raise StoreError(f"a part of the predictions for {folder} is gone", got=part.key)
        now = path.stat()
        entries.append(
            PartEntry(
                file=path.name,
                key=part.key,
                rows=part.rows,
                failed=part.failed,
                bytes=now.st_size,
                modified_ns=now.st_mtime_ns,
            )
        )
    if not entries:
        pq.write_table(scored.schema.empty_table(), building / "part-00000.parquet")
    rows, failed = sum(part.rows for part in scored.parts), sum(part.failed for part in scored.parts)
    if (got := _count(building)) != (rows, failed):
        raise StoreError(
            f"predictions for {folder} are incomplete",
            wanted=f"{rows} rows, {failed} of them with an error",
            got=f"{got[0]} rows, {got[1]} of them with an error",
        )
    reused = sum(part.rows for part in scored.parts if part.key in earlier)
    parts = [entry.model_dump() for entry in entries]
    content = {"rows": rows, "failed_rows": failed, **mark, "parts": parts}
    (building / MARKER).write_text(json.dumps(content, indent=1), encoding="utf-8")
    for path in [*building.glob("*.parquet"), *building.glob(".*")]:
        if not path.name.startswith("part-"):
            path.unlink(missing_ok=True)
    return Written(folder.as_uri(), rows, failed, reused)


def _count(folder: Path) -> tuple[int, int]:
    """Rows and rows with an error, from the footers of the folder's files."""
    import pyarrow.parquet as pq

    rows = failed = 0
    for path in sorted(folder.glob("part-*.parquet")):
        footer = pq.read_metadata(path)
        rows += footer.num_rows
        failed += footer.num_rows - _nulls(path, footer, "error")
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
