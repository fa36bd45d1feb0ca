"""The project on disk: copies of it, and edits of copies."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SHOP = Path(__file__).parent / "project"
Apply = Callable[[Path], None]

PACKAGES = {"parcels": ("1.0", "boxes>=1"), "boxes": ("2.0", "")}
"""Installed packages that the project uses, or that one of these requires: version and requirement."""


@dataclass(frozen=True)
class Edit:
    """An edit of the project, and what it must do to the key of a task.

    `shows`: the task returns something else after it. Only a version changes nothing that shows.
    """

    name: str
    must: Literal["miss", "hit"]
    task: str
    apply: Apply
    shows: bool = True


def write_project(folder: Path, edit: Edit | None = None) -> Path:
    """A copy of the project, with one edit."""
    shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (version, requires) in PACKAGES.items():
        install(folder, name, version, requires)
    if edit is not None:
        edit.apply(folder)
    return folder


WEIGH = "def weigh(n: int) -> int:\n    return n * 1000\n"


def install(folder: Path, name: str, version: str, requires: str = "", code: str = WEIGH) -> None:
    """A distribution with one module, as an installer leaves it that took it from a folder."""
    packages = folder / "site-packages"
    for old in packages.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    about = packages / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    requirement = f"Requires-Dist: {requires}\n" if requires else ""
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirement}")
    (about / "top_level.txt").write_text(f"{name}\n")
    (about / "direct_url.json").write_text(f'{{"url": "{folder.as_uri()}", "dir_info": {{}}}}')
    digest = hashlib.sha256(code.encode()).hexdigest()
    (about / "RECORD").write_text(f"{name}.py,sha256={digest},{len(code)}\n{about.name}/RECORD,,\n")
    (packages / f"{name}.py").write_text(code)


def built_again(name: str, code: str) -> Apply:
    """Install the same version once more, with other code in it."""
    return lambda folder: install(folder, name, *PACKAGES[name], code)


def replace(file: str, old: str, new: str) -> Apply:
    """Replace one passage of a file. It must be there exactly once."""

    def apply(folder: Path) -> None:
        path = folder / "shop" / file
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{file} has {text.count(old)} times {old!r}")
        path.write_text(text.replace(old, new))

    return apply


def append(file: str, text: str) -> Apply:
    """Add text at the end of a file, new or old."""

    def apply(folder: Path) -> None:
        path = folder / "shop" / file
        path.write_text((path.read_text() if path.exists() else "") + text)

    return apply


def release(name: str, version: str) -> Apply:
    """Install another version of a package."""
    return lambda folder: install(folder, name, version, PACKAGES[name][1])


def together(*edits: Apply) -> Apply:
    """Several edits as one."""

    def apply(folder: Path) -> None:
        for edit in edits:
            edit(folder)

    return apply
