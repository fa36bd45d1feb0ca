"""What each node of a dag was made of when it last ran, and how long it took: for reasons and estimates.

Nothing is decided by it. When it is damaged or gone, a plan says less; it is never wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from pydantic import Field, TypeAdapter, ValidationError

from ml_platform.errors import StoreError
from ml_platform.specs.base import Spec
from ml_platform.store.atomic import write_atomically
from ml_platform.store.location import home

KEPT_DURATIONS = 5


class NodeHistory(Spec):
    """One node, as it was last."""

    run: str
    own: dict[str, str] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict)
    code: str = ""
    seconds: tuple[float, ...] = ()

    @property
    def expected_seconds(self) -> float | None:
        """Median of the last times that it really ran."""
        return median(self.seconds) if self.seconds else None


_HISTORY = TypeAdapter(dict[str, NodeHistory])


def read_history(dag: str) -> dict[str, NodeHistory]:
    """History of a dag's nodes, by name. Empty when there is none that can be read."""
    try:
        return _HISTORY.validate_json(_path(dag).read_bytes())
    except (OSError, ValidationError):
        return {}


def add_to_history(dag: str, ran: Mapping[str, NodeHistory]) -> None:
    """Merge what a run found out. `seconds` of each are those of this run, empty when it was cached.

    Raises:
        StoreError: It cannot be written.
    """
    known = read_history(dag)
    for name, node in ran.items():
        before = known[name].seconds if name in known else ()
        known[name] = node.model_copy(update={"seconds": (*before, *node.seconds)[-KEPT_DURATIONS:]})
    path = _path(dag)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _HISTORY.dump_json(known))
    except OSError as error:
        raise StoreError(f"cannot write the history of {dag}", got=error) from error


def _path(dag: str) -> Path:
    """A dag may have any name; a file may not."""
    return home() / "history" / f"{hashlib.sha256(dag.encode()).hexdigest()[:32]}.json"
