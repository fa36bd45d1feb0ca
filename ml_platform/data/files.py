"""The files of a source: one, or those below a folder, Hive partitions included."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import unquote

from ml_platform.errors import DataError
from ml_platform.store.contents import content_digests


def data_files(root: Path, suffixes: Collection[str]) -> list[Path]:
    """The file itself, or the files below the folder whose names end so. Hidden ones are none.

    Raises:
        DataError: The folder holds none.
    """
    if root.is_file():
        return [root]
    found = sorted(path for path in root.rglob("*") if _is_data(path, root) and suffix(path) in suffixes)
    if not found:
        wanted = f"files that end with {', '.join(suffixes)}"
        raise DataError(f"folder {root} holds no data", wanted=wanted)
    return found


def suffixes_below(root: Path) -> set[str]:
    """How names of files below a folder end."""
    return {suffix(path) for path in root.rglob("*") if _is_data(path, root)}


def suffix(path: Path) -> str:
    """The end of a file's name, whether it is compressed or not.

    >>> suffix(Path("t.CSV.gz")), suffix(Path("t"))
    ('.csv', '')
    """
    return Path(path.name.lower().removesuffix(".gz")).suffix


def partition_names(root: Path, file: Path) -> list[str]:
    """Columns that the folders above a file name: `year` of year=2024/part.parquet."""
    folders = file.relative_to(root).parts[:-1] if root.is_dir() else ()
    return [unquote(part.partition("=")[0]) for part in folders if "=" in part]


def base_folder(root: Path) -> str:
    """Below which Spark finds partitions."""
    return f"file://{root if root.is_dir() else root.parent}"


def named_digests(root: Path, files: Iterable[Path]) -> dict[str, str]:
    """sha256 of each file by its name, below the folder where there is one."""
    above = root if root.is_dir() else root.parent
    return {str(Path(p).relative_to(above)): digest for p, digest in content_digests(files).items()}


def _is_data(path: Path, root: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in path.relative_to(root).parts)
    return not hidden and path.is_file()
