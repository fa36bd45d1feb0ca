"""What nothing reaches any more: found here, and removed when asked.

Kept is what a registered model, a kept run or a kept result names, what is young, and what this version
cannot read. Names are random or digests, so that it is enough to look for them in the text of
records and results, whatever their format.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from pydantic import Field

from ml_platform.errors import StoreError
from ml_platform.specs.base import Spec
from ml_platform.store.folders import open_folder, scheme_of
from ml_platform.store.leftovers import PASSING
from ml_platform.store.location import data_uri, home
from ml_platform.store.manifest import MANIFEST, Manifest
from ml_platform.store.objects import BUILDING, Entry, open_objects
from ml_platform.store.records import RUN
from ml_platform.store.results import CODE, FOLDER, Result, opened, sealed_body

Kind = Literal["result", "code", "data set", "evaluation", "backbone", "unfinished"]
ORDER: tuple[Kind, ...] = ("result", "code", "unfinished", "evaluation", "backbone", "data set")
"""In which order they are removed: a result never outlives what it names."""
GRACE_S = 3600
GRACE_ELSEWHERE_S = 24 * GRACE_S
"""What is younger may belong to a run under way: of this folder, or of a machine that shares the store."""
KEEP_MARKER = "keep"
DIGEST_CHARACTERS = 36
"""MLflow keeps no more of a fingerprint."""

FOLDER_NAME = re.compile(r"^[0-9a-f]{32}(\.(?:tmp|gone)-[0-9a-f]{8})?$")
NAMES = re.compile(rb"[0-9A-Za-z_.-]{16,}")


class Reached(Spec):
    """What the registry of models reaches."""

    fingerprints: frozenset[str] = Field(frozenset(), description="Of data sets; the first characters.")
    models: frozenset[str] = Field(frozenset(), description="Digests of models.")


class Item(Spec):
    """Something that is kept or removed as a whole."""

    kind: Kind
    root: str = Field(description="URI of the store that it lies in.")
    key: str = Field(description="Its object in there, or its folder.")
    bytes: int
    modified: float = Field(description="Seconds since 1970, of its newest object.")

    @property
    def uri(self) -> str:
        return f"{self.root}/{quote(self.key) if scheme_of(self.root) == 'file' else self.key}"

    @property
    def name(self) -> str:
        """The part of its key that nothing else has."""
        return self.key.rpartition("/")[2]


class Survey(Spec):
    """Everything that lies in the stores, sorted into two."""

    kept: tuple[Item, ...]
    garbage: tuple[Item, ...]


class Runs(NamedTuple):
    """Names of runs that have a record here."""

    kept: frozenset[str]
    all: frozenset[str]


def contents() -> tuple[Item, ...]:
    """Everything that this platform keeps in its store and beside it: evaluated rows, backbones of images.

    Raises:
        StoreError: The store cannot be asked.
    """
    store = data_uri()
    try:
        beside = (*_beside("evaluation", "evaluations"), *_beside("backbone", "backbones"))
        return (*_items_of_store(store, open_objects(store).walk()), *beside)
    except OSError as error:
        raise StoreError(f"the store {store} cannot be listed", got=error) from error


def survey(reached: Reached, *, keep_runs: int = 10) -> Survey:
    """Sort everything into what is kept and what is garbage. Nothing is removed.

    Args:
        reached: What registered models name.
        keep_runs: Newest runs of each dag to keep, beside those with a file `keep` in their folder and
            those that have not ended.
    Raises:
        StoreError: The store cannot be asked, or a run's record cannot be read: what it names is unknown.
    """
    items = contents()
    mark = _Mark(items, _runs(keep_runs), reached)
    try:
        kept = {item for kind in ORDER for item in items if item.kind == kind and mark.keeps(item)}
    except OSError as error:
        raise StoreError(f"not all of the store {data_uri()} can be read", got=error) from error
    return Survey(
        kept=tuple(item for item in items if item in kept),
        garbage=tuple(item for item in items if item not in kept),
    )


def remove(garbage: Sequence[Item]) -> int:
    """Remove items, results first, and uploads that were never finished. Returns the bytes of the items.

    Raises:
        StoreError: One could not be removed; those before it are gone.
    """
    for item in sorted(garbage, key=lambda item: ORDER.index(item.kind)):
        try:
            if FOLDER_NAME.match(item.name):
                open_folder(item.uri).remove()
            else:
                open_objects(item.root).remove(item.key)
        except OSError as error:
            raise StoreError(f"{item.uri} cannot be removed", got=error) from error
    _drop_uploads(time.time() - _grace_s())
    return sum(item.bytes for item in garbage)


def _drop_uploads(before: float) -> None:
    try:
        open_objects(data_uri()).drop_uploads(before)
    except OSError as error:
        raise StoreError(f"unfinished uploads to {data_uri()} cannot be dropped", got=error) from error


class _Mark:
    """Decides item by item. Results come first: those that are kept name more."""

    def __init__(self, items: Sequence[Item], runs: Runs, reached: Reached) -> None:
        self._runs = runs
        self._fingerprints = {text[:DIGEST_CHARACTERS] for text in reached.fingerprints}
        self._models = {digest[:16] for digest in reached.models}
        self._names = {name for run in runs.kept for name in _names_in_run(home() / "runs" / run)}
        self._names |= {name for path in (home() / "history").glob("*.json") for name in _names_in(path)}
        # After the clock jumped ahead all of it would look old; the newest object tells that it did.
        self._now = min(time.time(), max((item.modified for item in items), default=0.0))

    def keeps(self, item: Item) -> bool:
        young = item.modified > self._now - _grace_s()
        if item.kind == "result":
            return self._keeps_result(item, young)
        if item.kind == "data set":
            return young or item.name in self._names or self._is_registered(item)
        if item.kind == "evaluation":
            return young or item.name in self._names or Path(item.name).stem[-16:] in self._models
        if item.kind == "code":
            return young or item.name.removesuffix(".json") in self._names
        if item.kind == "backbone":
            return young or item.name in self._names
        return young

    def _keeps_result(self, item: Item, young: bool) -> bool:
        try:
            content = open_objects(item.root).read(item.key)
        except FileNotFoundError:
            return False
        kept = young or self._is_named(item) or self._is_wanted(content)
        if kept:
            self._names |= set(_names(content))
        return kept

    def _is_named(self, item: Item) -> bool:
        own, _, inputs = item.key.removeprefix(f"{FOLDER}/").removesuffix(".json").partition("/")
        return own in self._names and inputs in self._names

    def _is_wanted(self, content: bytes) -> bool:
        """A result of a kept run, or one that a newer version wrote: that one knows what it is for."""
        found = opened(content)
        if not isinstance(found, Result):
            return sealed_body(content) is not None
        return found.run in self._runs.kept or (found.run not in self._runs.all and _serves_others())

    def _is_registered(self, item: Item) -> bool:
        """Also where the manifest cannot be read: it may be one of those."""
        try:
            manifest = Manifest.model_validate_json(open_folder(item.uri).read(MANIFEST))
        except FileNotFoundError:
            return False
        except ValueError:
            return True
        is_whole = manifest.is_unaltered()
        return not is_whole or manifest.fingerprint[:DIGEST_CHARACTERS] in self._fingerprints


def _serves_others() -> bool:
    """A store outside the platform's folder may serve machines whose runs are not recorded here."""
    return not data_uri().startswith(home().as_uri() + "/")


def _grace_s() -> float:
    return GRACE_ELSEWHERE_S if _serves_others() else GRACE_S


def _items_of_store(root: str, entries: Iterable[Entry]) -> Iterator[Item]:
    folders: dict[str, list[Entry]] = {}
    for entry in entries:
        parts = entry.key.split("/")
        if parts[0] == PASSING:
            yield _item("unfinished", root, entry.key, [entry])
            continue
        if parts[0] == FOLDER:
            yield _item(_kind_of_result(parts), root, entry.key, [entry])
            continue
        at = next((at for at, part in enumerate(parts[:-1]) if at and FOLDER_NAME.match(part)), None)
        # What has no such folder above it is none of ours, and is left alone.
        if at is not None:
            folders.setdefault("/".join(parts[: at + 1]), []).append(entry)
    for key, found in folders.items():
        is_whole = any(entry.key == f"{key}/{MANIFEST}" for entry in found) and "." not in key.split("/")[-1]
        yield _item("data set" if is_whole else "unfinished", root, key, found)


def _kind_of_result(parts: Sequence[str]) -> Kind:
    if BUILDING in parts[-1]:
        return "unfinished"
    return "code" if parts[1:2] == [CODE] else "result"


def _beside(kind: Kind, folder: str) -> Iterator[Item]:
    """Files in a folder of the platform's."""
    root = (home() / folder).as_uri()
    for entry in open_objects(root).walk():
        yield _item("unfinished" if entry.key.startswith(".") else kind, root, entry.key, [entry])


def _item(kind: Kind, root: str, key: str, entries: Sequence[Entry]) -> Item:
    size, newest = sum(entry.bytes for entry in entries), max(entry.modified for entry in entries)
    return Item(kind=kind, root=root, key=key, bytes=size, modified=newest)


def _runs(keep: int) -> Runs:
    """Runs with a folder here, and those of them whose outputs are kept."""
    folder = home() / "runs"
    found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    kept, by_dag = set(), dict[str, list[Path]]()
    for path in found:
        record = _record(path)
        if record is None or record.get("state") == "running" or (path / KEEP_MARKER).exists():
            kept.add(path.name)
        else:
            by_dag.setdefault(str(record.get("dag")), []).append(path)
    for paths in by_dag.values():
        newest = sorted(paths, key=lambda path: (path / RUN).stat().st_mtime, reverse=True)
        kept |= {path.name for path in newest[:keep]}
    return Runs(frozenset(kept), frozenset(path.name for path in found))


def _record(folder: Path) -> dict[str, Any] | None:
    """A run's record; None when there is none, as in a folder that holds logs alone."""
    try:
        record = json.loads((folder / RUN).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(
            f"the record of run {folder.name!r} cannot be read, so what it needs is not known",
            got=error,
            hint=f"remove {folder} if nothing needs it",
        ) from error
    return record if isinstance(record, dict) else {}


def _names_in_run(folder: Path) -> Iterator[str]:
    for path in (*folder.glob("*.json*"), *folder.glob("nodes/*.json")):
        yield from _names_in(path)


def _names_in(path: Path) -> list[str]:
    try:
        return _names(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path} cannot be read, so what it names is not known", got=error) from error


def _names(text: bytes) -> list[str]:
    return [name.decode() for name in NAMES.findall(text)]
