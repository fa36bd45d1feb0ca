"""Run records: what one run did.

```
runs/<run>/run.json       written when the run began, and again, with its nodes, when it ended
runs/<run>/nodes.jsonl    one line per node that ended, as it ended: all that is left of a killed run.
                          A line begins with its line break, so that one that was cut short spoils no other
```
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter
from pydantic_core import to_json

from ml_platform.errors import SpecError, StoreError, nearest
from ml_platform.store import crash
from ml_platform.store.atomic import write_atomically
from ml_platform.store.leftovers import builder, is_dead
from ml_platform.store.location import home, runs_folder

RUN = "run.json"
NODES = "nodes.jsonl"
_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_OBJECT = TypeAdapter(dict[str, Any])
_KINDS = {"run": str, "dag": str, "state": str, "parameters": dict, "nodes": list}


class RunRecord:
    """The record of a run under way. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._nodes: IO[bytes] | None = None

    def begin(self, **facts: Any) -> None:
        """Say what is going to run."""
        self._make_folder()
        self._write_run({**facts, "state": "running", "process": builder()})

    def node(self, name: str, **facts: Any) -> None:
        """Append what became of one node. A line that a crash cuts short is left out when read."""
        line = b"\n" + _ANY.dump_json({"node": name, **facts}, fallback=repr)
        with self._lock:
            try:
                if self._nodes is None:
                    self._make_folder()
                    self._nodes = (self.folder / NODES).open("ab", buffering=0)
                if self._nodes.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                raise _unwritable(self.folder / NODES, error) from error

    def finish(self, **facts: Any) -> Path:
        """Fold the nodes and these facts into run.json. Returns its path."""
        self._make_folder()
        if self._nodes is not None:
            self._nodes.close()
        nodes = {node["node"]: node for node in _nodes(self.folder)}
        crash.point("its record is folded")
        return self._write_run({**facts, "nodes": list(nodes.values())})

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def _write_run(self, content: dict[str, Any]) -> Path:
        path = self.folder / RUN
        plain = _ANY.dump_python(content, mode="json", fallback=repr)
        # Infinity and NaN as they are: as null they would come back as something else.
        text = to_json(plain, indent=1, inf_nan_mode="constants")
        try:
            write_atomically(path, text)
        except OSError as error:
            raise _unwritable(path, error) from error
        return path


def read_run(run: str) -> dict[str, Any]:
    """What a run did, or had done when it was killed: its state says which.

    Raises:
        SpecError: There is no such run.
        StoreError: Its record was damaged.
    """
    folder = runs_folder(run)
    try:
        record = _checked(_OBJECT.validate_json((folder / RUN).read_bytes()), run)
    except FileNotFoundError as error:
        raise SpecError(f"there is no run {run!r}", hint=nearest(run, run_names())) from error
    except (OSError, ValueError) as error:
        raise StoreError(
            f"the record of run {run!r} cannot be read",
            got=error,
            hint=f"remove {folder} if nothing needs it",
        ) from error
    if record.get("state") == "running" and is_dead(str(record.get("process"))):
        record["state"] = "killed"
    if "nodes" not in record:
        record["nodes"] = list({node["node"]: node for node in _nodes(folder)}.values())
    return record


def record_name(flow_run: str, flow_run_id: str) -> str:
    """The name under which a flow run keeps its record: its own, unless another flow run has taken it.

    Prefect draws names from some 300,000: in a year of hourly runs some come twice.
    """
    name = flow_run.replace("/", "-").strip(". ") or "run"
    path = runs_folder(name) / RUN
    try:
        taken = path.exists() and json.loads(path.read_bytes()).get("flow_run_id") != flow_run_id
    except (OSError, ValueError, AttributeError):
        taken = True
    return f"{name}-{flow_run_id[-6:]}" if taken else name


def run_names() -> list[str]:
    """Names of all runs that have a record, newest first."""
    folder = home() / "runs"
    found = list(folder.glob(f"*/{RUN}")) if folder.is_dir() else []
    return [path.parent.name for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def _nodes(folder: Path) -> Iterator[dict[str, Any]]:
    """Lines of nodes.jsonl that are whole."""
    try:
        lines = (folder / NODES).read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        with suppress(ValueError):
            node = json.loads(line)
            if _is_node(node):
                yield node


def _checked(record: dict[str, Any], run: str) -> dict[str, Any]:
    """Readers count on these types, and that it is the record of this run.

    Raises:
        ValueError: Somebody wrote something else there.
    """
    wrong = [name for name, kind in _KINDS.items() if not isinstance(record.get(name, kind()), kind)]
    if wrong or not all(map(_is_node, record.get("nodes", ()))):
        raise ValueError(f"it is no record of a run: look at {', '.join(wrong) or 'nodes'}")
    if record.get("run", run) != run:
        raise ValueError(f"it is the record of {record['run']!r}")
    return record


def _is_node(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("node"), str)


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot write the run record {path}", got=error)
