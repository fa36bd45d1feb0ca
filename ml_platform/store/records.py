"""Run records: what one run did, one small file per node, folded into one JSON at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ml_platform.errors import StoreError
from ml_platform.store.atomic import write_atomically

_ANY: TypeAdapter[Any] = TypeAdapter(Any)


class RunRecord:
    """Files under `<folder>/nodes`, then `<folder>/run.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def node(self, name: str, **facts: Any) -> None:
        """Write (or replace) the record of one node."""
        self._write(Path("nodes") / f"{name}.json", {"node": name, **facts})

    def finish(self, **facts: Any) -> Path:
        """Fold the nodes' records and these facts into run.json. Returns its path."""
        nodes = [json.loads(path.read_text()) for path in sorted((self.folder / "nodes").glob("*.json"))]
        nodes.sort(key=lambda node: node.get("started", ""))
        return self._write(Path("run.json"), {**facts, "nodes": nodes})

    def _write(self, name: Path, content: dict[str, Any]) -> Path:
        path = self.folder / name
        text = json.dumps(_ANY.dump_python(content, mode="json", fallback=repr), indent=1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text.encode())
        except OSError as error:
            raise StoreError(f"cannot write the run record {path}", got=error) from error
        return path
