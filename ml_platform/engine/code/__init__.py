"""What code a task is: every function, class and value that it reaches, and the packages behind them.

Two processes, two checkouts and two doors into the same code agree on it. Comments, docstrings, blank
lines, names of local variables and places in files do not count. What cannot be told is said: `notes`
where more was hashed than is used, `uncacheable` where something has no value to hash.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from ml_platform.engine.code.origin import versions
from ml_platform.engine.code.scan import sha
from ml_platform.engine.code.walk import Part, Walk
from ml_platform.specs.base import Spec

__all__ = ["Code", "code_of", "explain"]

_SHOWN = 3
_HASH_DIGITS = 16


class Code(Spec):
    """The code of one function, with all that it reaches."""

    parts: dict[str, str]
    """`module.qualname` → kind and short hash of that part alone: `function 0123456789abcdef`."""
    packages: dict[str, str]
    """Distribution → version, of packages that are used and of what those require."""
    wiring: str
    """sha256 over all parts and who uses whom. `parts` say in words what is in it."""
    notes: tuple[str, ...] = ()
    """Where more was hashed than is used, and what the key does not see."""
    uncacheable: tuple[str, ...] = ()
    """What cannot be hashed, with path and type. Empty: results can be kept."""

    @cached_property
    def digest(self) -> str:
        """sha256, 64 hexadecimal digits. Modules do not enter it: a moved function is the same function."""
        packages = (f"{name} {version}" for name, version in sorted(self.packages.items()))
        return sha([self.wiring, *packages])


def code_of(function: Any, walk: Walk | None = None) -> Code:
    """The code of a function or class.

    Args:
        function: A function, a class, or a task or flow around a function.
        walk: One that has been from others before: what those reach too is what it was then. Default: all
            is as it is now.
    """
    root = (walk or Walk()).root(function)
    reached = root.reached()
    parts = reached[1:]
    hashes: dict[str, list[str]] = {}
    for part in parts:
        hashes.setdefault(part.name, []).append(f"{part.kind} {part.content}")
    return Code(
        parts={name: _short(found) for name, found in sorted(hashes.items())},
        packages={
            "python": ".".join(platform.python_version_tuple()[:2]),
            **dict(sorted(versions(set().union(*(part.packages for part in reached))).items())),
        },
        wiring=_wiring(root, parts),
        notes=_told(part.notes for part in reached),
        uncacheable=_told(part.uncacheable for part in reached),
    )


def _told(said: Iterable[set[str]]) -> tuple[str, ...]:
    return tuple(sorted(set().union(*said)))


def _short(hashes: Iterable[str]) -> str:
    first, *more = sorted(set(hashes))
    kind, _, digest = first.partition(" ")
    return f"{kind} {(sha([first, *more]) if more else digest)[:_HASH_DIGITS]}"


def _wiring(root: Part, parts: Iterable[Part]) -> str:
    """Colour refinement: parts that are alike and use alike parts get one colour, in any order of a walk."""
    everything = [root, *parts]
    colours = {part: part.content for part in everything}
    while True:
        finer = {part: sha([part.content, *(colours[used] for used in part.uses)]) for part in everything}
        if len(set(finer.values())) == len(set(colours.values())):
            return sha([finer[root], *sorted(set(finer.values()))])
        colours = finer


def explain(old: Code, new: Code) -> str:
    """Why two codes differ, in one line; empty if they do not.

    >>> old = Code(parts={"tasks.x.helper": "function 01"}, packages={"keras": "3.15.1"}, wiring="")
    >>> explain(old, Code(parts={"tasks.x.helper": "function 02"}, packages={"keras": "3.16.0"}, wiring=""))
    'function tasks.x.helper changed; keras 3.15.1 → 3.16.0'
    """
    reasons = _changed_parts(old.parts, new.parts) + _changed_versions(old.packages, new.packages)
    if not reasons and old.wiring != new.wiring:
        reasons = ["another function of the same name is used"]
    return "; ".join(reasons)


def _changed_parts(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    changed = [(_kind(new[name]), name) for name in new if name in old and old[name] != new[name]]
    if changed:
        return [_sentence(changed, "changed")]
    kept_old, kept_new = set(old.values()), set(new.values())
    added = [(_kind(new[name]), name) for name in new if name not in old and new[name] not in kept_old]
    removed = [(_kind(old[name]), name) for name in old if name not in new and old[name] not in kept_new]
    return [_sentence(found, verb) for found, verb in ((added, "is new"), (removed, "is gone")) if found]


def _kind(value: str) -> str:
    return value.rpartition(" ")[0]


def _sentence(found: list[tuple[str, str]], verb: str) -> str:
    if len(found) == 1:
        return f"{found[0][0]} {found[0][1]} {verb}"
    kinds = {kind for kind, _ in found}
    what = f"{kinds.pop()}s".replace("sss", "sses") if len(kinds) == 1 else "parts"
    names = ", ".join(name for _, name in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{len(found)} {what} {verb.replace('is ', 'are ')}: {names}{more}"


def _changed_versions(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    found = [f"{name} {old.get(name, 'unused')} → {new.get(name, 'unused')}" for name in names]
    return [*found[:_SHOWN], *([f"{len(found) - _SHOWN} more packages"] if len(found) > _SHOWN else [])]
