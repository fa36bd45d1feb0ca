"""Who was champion of a model, and how a person makes an earlier version champion again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ml_platform.errors import SpecError, TrackingError
from ml_platform.tracking import ledger
from ml_platform.tracking.ledger import Entry, Kind, Move
from ml_platform.tracking.registry import MODEL_TAG, champion_number, change_champion, find
from ml_platform.tracking.server import absent, ask, client

if TYPE_CHECKING:
    from mlflow import MlflowClient

DECISION_TAG = "gate.decision"


@dataclass(frozen=True)
class Reign:
    """One time that a version became champion."""

    version: int
    since: datetime
    before: int | None
    """The champion until then."""
    kind: Kind
    why: str
    who: str
    flow_run: str
    """The run that promoted it; empty for a person."""
    mlflow_run: str
    """The MLflow run that trained it; empty when the version was deleted."""
    verdict: str
    """What the gate decided about it."""


def history(name: str) -> list[Reign]:
    """All champions of a model, the first one first.

    Raises:
        SpecError: Nothing was ever promoted under this name.
        TrackingError: MLflow could not be asked.
    """
    mlflow = client()
    moves = ledger.entries(mlflow, name)
    if not moves:
        raise SpecError(
            f"no version of {name!r} has ever become champion",
            wanted=f"one of {', '.join(_promoted(mlflow)) or 'none yet'}",
            hint="python -m flows.retrain trains a model and promotes it",
        )
    versions = {number: _found(mlflow, name, number) for number in {entry.move.to for entry in moves}}
    return [_reign(entry, versions[entry.move.to]) for entry in moves]


def rollback(name: str, to: int | None = None, *, why: str = "", dry_run: bool = False) -> Move:
    """Make an earlier version champion again, by the protocol of a promotion.

    Args:
        to: The version. None: the one that the champion replaced when it won its gate.
        why: What a person says about it, for the ledger.
        dry_run: Change nothing.
    Returns:
        What was done, or would be.
    Raises:
        SpecError: There is no champion, no such version, or nothing before the champion.
        PromotionError: Another process moved the champion meanwhile; nothing was changed.
    """
    mlflow = client()
    now = champion_number(mlflow, name)
    if now is None:
        raise SpecError(f"{name!r} has no champion", hint="python -m flows.retrain promotes the first")
    target = _replaced(ledger.entries(mlflow, name), name, now) if to is None else to
    if target == now:
        raise SpecError(f"version {now} of {name!r} is the champion already", wanted="another version")
    find(f"models:/{name}/{target}")
    move = Move(target, now, "rollback", why=why)
    if not dry_run:
        change_champion(name, move)
    return move


def rolled_back(name: str) -> dict[str, str]:
    """The models that a person took back and nobody has made champion since: uri → who, and why."""
    mlflow = client()
    taken: dict[int, Entry] = {}
    for entry in ledger.entries(mlflow, name):
        taken.pop(entry.move.to, None)
        if entry.move.kind == "rollback" and entry.move.before is not None:
            taken[entry.move.before] = entry
    versions = {number: _found(mlflow, name, number) for number in taken}
    return {
        version.tags[MODEL_TAG]: _said(taken[number].move)
        for number, version in versions.items()
        if version is not None and MODEL_TAG in version.tags
    }


def _replaced(moves: list[Entry], name: str, now: int) -> int:
    """What the champion replaced when it was promoted: going back twice goes back two steps."""
    won = [entry.move for entry in moves if entry.move.to == now and entry.move.kind == "gate"]
    if not won or won[-1].before is None:
        raise SpecError(
            f"nothing was champion of {name!r} before version {now}",
            hint=f"name a version: python -m ml_platform registry rollback {name} --to VERSION",
        )
    return won[-1].before


def _found(mlflow: MlflowClient, name: str, number: int) -> Any:
    try:
        return ask("read a version", mlflow.get_model_version, name, str(number))
    except TrackingError as error:
        if absent(error):
            return None
        raise


def _reign(entry: Entry, version: Any) -> Reign:
    move = entry.move
    return Reign(
        version=move.to,
        since=entry.at,
        before=move.before,
        kind=move.kind,
        why=move.why,
        who=move.who,
        flow_run=move.run,
        mlflow_run=(version.run_id or "") if version else "",
        verdict=version.tags.get(DECISION_TAG, "") if version else "",
    )


def _said(move: Move) -> str:
    return f"{move.who}: {move.why}" if move.why else move.who


def _promoted(mlflow: MlflowClient) -> list[str]:
    found = ask("list models", mlflow.search_registered_models, max_results=100)
    names = {model.name for model in found}
    return sorted(name for name in names if not ledger.is_ledger(name) and ledger.ledger_of(name) in names)
