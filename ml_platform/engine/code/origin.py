"""Where a module comes from: the standard library, an installed package, or the project itself."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Literal

Origin = Literal["stdlib", "package", "project"]
_INSTALLED = ("/site-packages/", "/dist-packages/")


def origin(module: str) -> Origin:
    """Who answers for this module. What has no file and no name known to Python is the project's."""
    top = module.partition(".")[0]
    if top == "__main__" or not top:
        return "project"
    return _origin(module) if _is_namespace(top) else _origin(top)


@functools.cache
def _origin(module: str) -> Origin:
    top = module.partition(".")[0]
    if module in sys.builtin_module_names or module == "builtins":
        return "stdlib"
    file = module_file(module)
    if file is None:
        return "stdlib" if top in sys.stdlib_module_names else "project"
    text = file.as_posix()
    if any(part in text for part in _INSTALLED):
        return "package" if distributions_of(top) else "project"
    return "stdlib" if text.startswith(_stdlib_folders()) else "project"


@functools.cache
def _is_namespace(top: str) -> bool:
    """Whether several distributions, or the project and one, may share this top-level name."""
    module = sys.modules.get(top)
    if module is not None:
        return getattr(module, "__file__", None) is None and hasattr(module, "__path__")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is None and spec.submodule_search_locations is not None


@functools.lru_cache(maxsize=1)
def _stdlib_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({f"{Path(paths[name]).resolve().as_posix()}/" for name in ("stdlib", "platstdlib")})


def module_file(module: str) -> Path | None:
    """The file of a module, found without importing it or its parents. None: it has none, or is not there."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded:
        return Path(loaded).resolve()
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for index in range(len(rest)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = ".".join([top, *rest[: index + 1]])
        spec = _found(name, list(spec.submodule_search_locations))
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    return Path(spec.origin).resolve()


def _found(name: str, places: list[str]) -> ModuleSpec | None:
    try:
        return PathFinder.find_spec(name, places)
    except KeyError:  # a namespace package in another one: Python wants that to be imported
        spec = ModuleSpec(name, None, is_package=True)
        folders = (Path(place, name.rpartition(".")[2]) for place in places)
        spec.submodule_search_locations = [str(folder) for folder in folders if folder.is_dir()]
        return spec


def is_there(module: str) -> bool:
    """Whether the module, or namespace package, exists."""
    if module in sys.modules or module_file(module) is not None:
        return True
    parent, _, name = module.rpartition(".")
    file = module_file(parent) if parent else None
    return file is not None and file.name == "__init__.py" and (file.parent / name).is_dir()


@functools.cache
def distributions_of(top: str) -> tuple[str, ...]:
    """Names of the installed distributions that provide a top-level module."""
    try:
        # Most are named like their module. To look through all of them takes a while.
        if _provides(*_contents(importlib.metadata.distribution(top)), top):
            return (_normal(top),)
    except importlib.metadata.PackageNotFoundError:
        pass
    found = (one for one, declared, files in _all_contents() if _provides(declared, files, top))
    return tuple(sorted({_normal(one.metadata["Name"]) for one in found}))


def _provides(declared: str, files: str, top: str) -> bool:
    if declared:
        return top in declared.split()
    return any(f"\n{top}{end}" in files for end in ("/", ".py,"))


def _contents(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    """The top-level modules that a distribution declares, or else the files that it lists."""
    declared = distribution.read_text("top_level.txt") or ""
    return declared, "" if declared else f"\n{distribution.read_text('RECORD') or ''}"


@functools.lru_cache(maxsize=1)
def _all_contents() -> list[tuple[importlib.metadata.Distribution, str, str]]:
    return [(one, *_contents(one)) for one in importlib.metadata.distributions()]


def versions(tops: Iterable[str]) -> dict[str, str]:
    """Versions of the distributions that provide these modules, and of all that those require."""
    names = {(name, "") for top in tops for name in distributions_of(top)}
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    while names:
        name, extra = names.pop()
        seen.add((name, extra))
        version, required = _requirements(name, extra)
        found[name] = version
        names |= set(required) - seen
    return found


@functools.cache
def _requirements(name: str, extra: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Version of a distribution, and (distribution, extra) of what it requires here."""
    from packaging.requirements import InvalidRequirement, Requirement

    version, lines = _installed(name)
    required: list[tuple[str, str]] = []
    for line in lines:
        if not extra and "extra ==" in line and " or " not in line:
            continue  # wanted by an extra alone: most lines are, and reading one takes a while
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue
        if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
            required.extend((_normal(wanted.name), part) for part in ("", *sorted(wanted.extras)))
    return version, tuple(required)


@functools.cache
def _installed(name: str) -> tuple[str, tuple[str, ...]]:
    """Version of a distribution, and the lines that say what it requires."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed", ()
    # Each look at `distribution.version` or `.requires` reads the file anew.
    about = distribution.metadata
    required = about.get_all("Requires-Dist") or distribution.requires or ()
    return f"{about['Version']}{_build(distribution)}", tuple(required)


def _build(distribution: importlib.metadata.Distribution) -> str:
    """What tells two builds of one version apart: those that no index holds may be made again and again."""
    if not distribution.read_text("direct_url.json"):
        return ""
    listed = (distribution.read_text("RECORD") or "").splitlines()
    code = [line for line in listed if ".dist-info/" not in line and "__pycache__" not in line]
    return f"+{hashlib.sha256(chr(10).join(sorted(code)).encode()).hexdigest()[:12]}" if code else ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
