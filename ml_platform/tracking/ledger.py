"""The ledger of a model: every move of its champion, in one order that all processes see.

MLflow sets an alias without a condition, so two machines could both believe that they moved it. What it does
atomically is to number versions. A move is therefore first entered as a version of `<name>.promotions`, and
names the entry that it follows. Of several that follow the same one the lowest number counts, the others
are void: whoever reads its own entry back there has won, everybody else knows who did.
"""

from __future__ import annotations

import getpass
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

from ml_platform.errors import SpecError, TrackingError
from ml_platform.tracking.server import absent, ask

if TYPE_CHECKING:
    from mlflow import MlflowClient

P = ParamSpec("P")
Kind = Literal["gate", "rollback"]

SUFFIX = ".promotions"
SOURCE = "ml-platform:///promotion"
"""MLflow wants to know where files lie; there are none."""
TAG = "ml_platform.move."
DONE_TAG = f"{TAG}done"
PAGE = 1_000
TEXT_CHARACTERS = 4_000


@dataclass(frozen=True)
class Move:
    """The champion moves to version `to`."""

    to: int
    before: int | None
    """The champion until then; None when there was none."""
    kind: Kind
    why: str = ""
    """The gate's sentence, or what the person said."""
    run: str = ""
    """The flow run that asked for it."""
    who: str = ""


@dataclass(frozen=True)
class Entry:
    """A move in the ledger."""

    number: int
    follows: int
    """Number of the entry that the writer saw as the last; 0 for none."""
    claim: str
    """Unique: a request that HTTP repeated is known by it."""
    move: Move
    at: datetime
    done: bool
    """Whether the aliases were moved. A process that was killed in between leaves this to the next."""


def entries(mlflow: MlflowClient, name: str) -> list[Entry]:
    """The moves that count, in their order."""
    found = sorted(_entries(mlflow, name), key=lambda entry: entry.number)
    chain: list[Entry] = []
    for entry in found:
        if entry.follows == (chain[-1].number if chain else 0):
            chain.append(entry)
    return chain


def claim(mlflow: MlflowClient, name: str, move: Move, follows: int) -> tuple[Entry, bool]:
    """Enter a move behind entry `follows` (0: as the first).

    Returns:
        The entry that counts there, and whether it is this one.
    """
    mine = uuid.uuid4().hex
    _enter(mlflow, name, move, follows, mine)
    counted = next(entry for entry in entries(mlflow, name) if entry.follows == follows)
    return counted, counted.claim == mine


def mark_done(mlflow: MlflowClient, name: str, entry: Entry) -> Entry:
    """Remember that the aliases stand where the entry says."""
    number = str(entry.number)
    upsert("tag a promotion", mlflow.set_model_version_tag, ledger_of(name), number, DONE_TAG, "yes")
    return replace(entry, done=True)


def ledger_of(name: str) -> str:
    """The registered model that keeps the ledger of another."""
    return f"{name}{SUFFIX}"


def is_ledger(name: str) -> bool:
    """Whether a registered model is the ledger of another."""
    return name.endswith(SUFFIX)


def upsert(what: str, question: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
    """Ask MLflow to set a tag or an alias, also while another process sets the same one.

    MLflow looks whether it is there, and then inserts or updates it: of two that insert, one fails.
    """
    try:
        ask(what, question, *args, **kwargs)
    except TrackingError as error:
        if "IntegrityError" not in str(error.__cause__):
            raise
        ask(what, question, *args, **kwargs)


def create_registered(mlflow: MlflowClient, name: str, description: str | None = None) -> None:
    """Make a registered model, unless there is one."""
    try:
        ask(f"read the registered model {name!r}", mlflow.get_registered_model, name)
    except TrackingError as error:
        if not absent(error):
            raise
    else:
        return
    try:
        ask(
            f"make the registered model {name!r}",
            mlflow.create_registered_model,
            name,
            description=description,
        )
    except TrackingError as error:
        # Another process made it just now.
        if getattr(error.__cause__, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
            raise


def search_versions(mlflow: MlflowClient, wanted: str) -> Iterator[Any]:
    """All versions that a filter finds."""
    token = None
    while True:
        page = ask(
            "search versions", mlflow.search_model_versions, wanted, max_results=PAGE, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def quoted(text: str) -> str:
    """A text for a filter.

    Raises:
        SpecError: MLflow's filters could not hold it.
    """
    if "'" in text:
        raise SpecError(f"{text!r} holds a quote, which MLflow's search cannot take")
    return text


def _entries(mlflow: MlflowClient, name: str) -> Iterator[Entry]:
    for version in search_versions(mlflow, f"name = '{quoted(ledger_of(name))}'"):
        if f"{TAG}claim" in version.tags:
            yield _read(version)


def _read(version: Any) -> Entry:
    fields = {key.removeprefix(TAG): value for key, value in version.tags.items() if key.startswith(TAG)}
    before = fields.get("before", "")
    move = Move(
        to=int(fields["to"]),
        before=int(before) if before else None,
        kind="rollback" if fields["kind"] == "rollback" else "gate",
        **{key: fields.get(key, "") for key in ("why", "run", "who")},
    )
    return Entry(
        number=int(version.version),
        follows=int(fields["follows"]),
        claim=fields["claim"],
        move=move,
        at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        done="done" in fields,
    )


def _enter(mlflow: MlflowClient, name: str, move: Move, follows: int, claim: str) -> None:
    fields = {
        "to": move.to,
        "before": "" if move.before is None else move.before,
        "kind": move.kind,
        "why": move.why[:TEXT_CHARACTERS],
        "run": move.run,
        "who": move.who or _person(),
        "follows": follows,
        "claim": claim,
    }
    if not follows:
        create_registered(mlflow, ledger_of(name), f"Who became champion of {name}, and when. Not a model.")
    ask(
        f"enter a promotion of {name!r}",
        mlflow.create_model_version,
        ledger_of(name),
        source=SOURCE,
        tags={f"{TAG}{key}": str(value) for key, value in fields.items()},
        description=f"{name} {move.before or 'none'} → {move.to} ({move.kind})",
    )


def _person() -> str:
    user = "unknown"
    with suppress(KeyError, OSError):
        # A container's user may have no name.
        user = getpass.getuser()
    return f"{user}@{socket.gethostname()}"
