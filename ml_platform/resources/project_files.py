"""The project's own packages on their way to executors on other machines, as one zip file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_platform.errors import ResourceStartError

FILE_BYTES = 1 << 20
"""A larger file inside a package is data, and stays here."""
TOTAL_BYTES = 64 << 20


def pack_packages(folders: Sequence[Path], target: Path) -> Path:
    """Write every package and module that lies directly in `folders` into the zip file `target`.

    Where two have the same name, the first counts, as in an import.

    Raises:
        ResourceStartError: They are larger than 64 MiB.
    """
    total, names = 0, set()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for root, path in _files(folders):
            name = path.relative_to(root).as_posix()
            if name in names:
                continue
            names.add(name)
            total += path.stat().st_size
            if total > TOTAL_BYTES:
                raise ResourceStartError(
                    "the project's packages are too large to be sent to executors",
                    wanted=f"at most {TOTAL_BYTES >> 20} MiB in {', '.join(map(str, folders))}",
                    got=f"more, at {path}",
                    hint="data does not belong into packages; large packages belong into `make pack`",
                )
            archive.write(path, name)
    return target


def _files(folders: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    taken: set[str] = set()
    for root in folders:
        for entry in sorted(root.iterdir()):
            module = entry.suffix == ".py" and entry.is_file()
            if entry.name in taken or not (module or (entry / "__init__.py").is_file()):
                continue
            taken.add(entry.name)
            if module:
                yield root, entry
            else:
                yield from ((root, path) for path in sorted(entry.rglob("*")) if _belongs(path, root))


def _belongs(path: Path, root: Path) -> bool:
    hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(root).parts)
    return not hidden and path.is_file() and path.stat().st_size <= FILE_BYTES
