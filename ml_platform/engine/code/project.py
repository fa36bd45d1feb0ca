"""Where the project lies: its folder, and which of its files can be imported."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

from ml_platform.engine.code.origin import module_file


@functools.cache
def project_root(module: str) -> Path | None:
    """The folder that holds the top-level package of a module. None: the module has no file."""
    file = module_file(module)
    if file is None:
        return None
    depth = module.count(".") + (file.name == "__init__.py")
    return file.parents[depth] if depth < len(file.parents) else file.parent


def importable_files(modules: Iterable[str]) -> list[tuple[Path, Path]]:
    """(root, file) of every Python file that code beside these modules could import, in order of names.

    Top-level files and packages beside them, with or without `__init__.py`. Folders whose name is none in
    Python hold no code that has a name.
    """
    found: dict[str, tuple[Path, Path]] = {}
    for module in modules:
        root = project_root(module)
        if root is not None:
            for file in _files(root, module.partition(".")[0]):
                found.setdefault(file.relative_to(root).as_posix(), (root, file))
    return [found[name] for name in sorted(found)]


def _files(root: Path, own: str) -> Iterator[Path]:
    for entry in sorted(root.iterdir()):
        if entry.suffix == ".py":
            yield entry
        elif entry.name == own or (entry.name.isidentifier() and not (entry / "pyvenv.cfg").exists()):
            yield from sorted(entry.rglob("*.py"))


def without_root(text: str, module: str) -> str:
    """A text that names files of the project, as it reads in every checkout."""
    root = project_root(module) if "/" in text or "\\" in text else None
    if root is None or len(root.parts) < 2:
        return text
    return text.replace(str(root), "<project>")
