"""Why two runs differ: what their nodes were made of, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_platform.engine.code import Code, explain
from ml_platform.engine.decide import changes
from ml_platform.specs.base import Spec
from ml_platform.store.results import Results


class Difference(Spec):
    """What differs at one node, in words; in the order: code, parameters and world, inputs."""

    node: str
    changes: tuple[str, ...]


def compare(run: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    """Differences of two run records, for every node where there is one."""
    ours, theirs = ({node["node"]: node for node in record["nodes"]} for record in (run, other))
    found = []
    for name in dict.fromkeys([*ours, *theirs]):
        if name not in ours or name not in theirs:
            which = other if name in theirs else run
            found.append(Difference(node=name, changes=(f"only in {which.get('run')}",)))
        elif said := _changes(ours[name], theirs[name]):
            found.append(Difference(node=name, changes=tuple(said)))
    return found


def _changes(node: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    said = _code(node.get("code"), other.get("code"))
    said += changes(node.get("parts") or {}, other.get("parts") or {})
    said += changes(node.get("input_parts") or {}, other.get("input_parts") or {})
    states = [str(one.get("state")).replace("cached", "completed") for one in (node, other)]
    if states[0] != states[1]:
        said.append(f"state: {states[0]} → {states[1]}")
    return said


def _code(before: str | None, now: str | None) -> list[str]:
    if before == now:
        return []
    kept = [Results().get_code(digest) if digest else None for digest in (before, now)]
    if None in kept:
        return ["its code differs; what it was is not kept any more"]
    old, new = (Code.model_validate(content) for content in kept)
    return [explain(old, new)] if old.digest != new.digest else []
