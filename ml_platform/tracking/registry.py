"""The registry: versions of a model, and the alias `champion` that only a won gate, or a person, moves.

Promotion: the champion is read again and must be the one that the gate compared with; the move is entered
in the model's ledger, which exactly one of several processes can do, on whatever machines they are
(`ledger.py`); the winner sets `previous`, then `champion`. The move of a winner that was killed before
that is carried out by whoever comes next, and one that slept meanwhile finds later entries and sets what
those say. A lock per model keeps processes of one machine from meeting there at all.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import DataError, PromotionError, SpecError, TrackingError
from ml_platform.specs.references import Model, Version
from ml_platform.store import crash
from ml_platform.tracking import ledger, models
from ml_platform.tracking.ledger import Entry, Move, create_registered, quoted, search_versions, upsert
from ml_platform.tracking.locks import exclusive
from ml_platform.tracking.server import absent, ask, client
from ml_platform.tracking.uris import database_file, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
MODEL_TAG = "ml_platform.model"
JUDGED_ON = "ml_platform.judged_on."
"""And the fingerprint of a holdout: the name of a tag. A model may be judged on several."""
TAG_CHARACTERS = 100_000


def champion(name: str) -> Version | None:
    """The version that serves; None when the model or the alias is not there yet.

    Raises:
        TrackingError: MLflow could not be asked.
        DataError: The alias stands on a version that this platform did not log.
    """
    mlflow = client()
    number = _aliases(mlflow, name).get(CHAMPION)
    return None if number is None else _version(mlflow, name, number)


def champion_against(challenger: Model, name: str, *, promoted_by: Collection[str]) -> Version | None:
    """The version that a challenger is judged against: the one that serves, or, where these runs have made a
    champion of the challenger itself, the one that served before."""
    serving = champion(name)
    if serving is None or serving.model != challenger:
        return serving
    mlflow = client()
    last = ledger.entries(mlflow, name)[-1:]
    if not last or last[0].move.to != serving.version or last[0].move.run not in promoted_by:
        return serving
    before = last[0].move.before
    return None if before is None else _version(mlflow, name, before)


def find(uri: str) -> Version:
    """The registered version that a URI names: models:/<name>/<version> or models:/<name>@<alias>.

    Raises:
        SpecError: There is none.
    """
    mlflow = client()
    name, alias, number = _parsed(uri)
    if alias:
        aliases = _aliases(mlflow, name)
        if alias not in aliases:
            raise SpecError(
                f"MLflow has no {uri}",
                got=f"aliases of {name!r}: {', '.join(sorted(aliases)) or 'none'}",
                hint=f"promote one: flows.retrain, or another flow that learns, with --model {name}",
            )
        number = aliases[alias]
    return _version(mlflow, name, number)


def register(
    model: Model,
    name: str,
    *,
    tags: Mapping[str, object],
    description: str = "",
    holdout: str | None = None,
) -> Version:
    """Register a logged model as the next version of `name`, and let `challenger` stand on it.

    Doing it again for the same model finds the version that is there.

    Args:
        model: What `TrackingRun.log_model` returned.
        name: The registered model; made when there is none.
        tags: The gate's report, readable by machines.
        description: The same for people, Markdown.
        holdout: Fingerprint of the rows that the gate decided on; `holdout_uses` counts them.
    """
    mlflow = client()
    create_registered(mlflow, name)
    used = {} if holdout is None else {f"{JUDGED_ON}{holdout}": "yes"}
    marked = {str(key): str(value)[:TAG_CHARACTERS] for key, value in {**tags, **used}.items()}
    number = _registered(mlflow, name, model)
    if number is None:
        number = _new_version(mlflow, name, model, marked, description)
    else:
        for key, value in used.items():
            upsert("tag a version", mlflow.set_model_version_tag, name, str(number), key, value)
    crash.point("before the challenger changes")
    ask("set an alias", mlflow.set_registered_model_alias, name, CHALLENGER, str(number))
    return Version(name=name, version=number, model=model)


def promote(version: Version, expected: Version | None, *, why: str = "", run: str = "") -> Version:
    """Make `version` the champion, if the champion is still the one that the gate compared with.

    Args:
        version: The candidate that won its gate.
        expected: The champion that it was compared with; None when there was none.
        why: The gate's sentence, for the ledger.
        run: The flow run that asks, for the ledger.
    Returns:
        The champion. A promotion that was already done is left as it is.
    Raises:
        PromotionError: Another run moved the champion meanwhile; nothing was changed.
        TrackingError: MLflow failed; the old champion stands, or a promotion that is entered is finished by
            the next.
    """
    before = expected.version if expected else None
    change_champion(version.name, Move(version.version, before, "gate", why=why, run=run))
    return version


def still_champion(output: Version | None, name: str) -> str | None:
    """Why a promotion no longer stands; None while the champion is the one that it left."""
    now = champion(name)
    return None if now == output else f"the champion is now {_shown(name, now.version if now else None)}"


def champion_now(name: str) -> int | None:
    """Number of the version that serves; None when the model or the alias is not there."""
    return champion_number(client(), name)


def holdout_uses(name: str, holdout: str, challenger: Model) -> int:
    """How many different challengers of `name` these holdout rows have judged, this one included.

    Args:
        name: The registered model; one that does not exist has used nothing.
        holdout: Fingerprint of the rows.
        challenger: The one that is judged now; again, perhaps.
    """
    wanted = f"name = '{quoted(name)}' and tag.`{JUDGED_ON}{quoted(holdout)}` = 'yes'"
    judged = {version.tags.get(MODEL_TAG, "") for version in search_versions(client(), wanted)}
    return len(judged | {challenger.uri})


def _parsed(uri: str) -> tuple[str, str, int]:
    name, alias = uri.removeprefix("models:/"), ""
    number = "0"
    if "@" in name:
        name, _, alias = name.partition("@")
    else:
        name, _, number = name.partition("/")
    if not uri.startswith("models:/") or not name or not (alias or number.isdecimal()):
        raise SpecError(
            f"{uri!r} names no registered model", wanted="models:/<name>@champion or models:/<name>/<version>"
        )
    return name, alias, int(number)


def _aliases(mlflow: MlflowClient, name: str) -> dict[str, int]:
    try:
        found = ask(f"read the registered model {name!r}", mlflow.get_registered_model, name)
    except TrackingError as error:
        if absent(error):
            return {}
        raise
    return {alias: int(number) for alias, number in found.aliases.items()}


def champion_number(mlflow: MlflowClient, name: str) -> int | None:
    """Number of the version that the alias stands on, whoever set it."""
    return _aliases(mlflow, name).get(CHAMPION)


def _version(mlflow: MlflowClient, name: str, number: int) -> Version:
    try:
        found = ask("read a version", mlflow.get_model_version, name, str(number))
    except TrackingError as error:
        if absent(error):
            raise SpecError(f"MLflow has no version {number} of {name!r}") from error
        raise
    model = models.reference(mlflow, found.tags[MODEL_TAG]) if MODEL_TAG in found.tags else None
    if model is None or model.digest != found.tags.get(models.DIGEST_TAG):
        raise DataError(
            f"version {number} of {name!r} was not registered by ml-platform",
            wanted=f"the tags {MODEL_TAG} and {models.DIGEST_TAG} of a model that a run logged",
            hint="a model is code: only those that a run of this platform logged are opened",
        )
    return Version(name=name, version=number, model=model)


def _registered(mlflow: MlflowClient, name: str, model: Model) -> int | None:
    by_run = f"name = '{quoted(name)}' and run_id = '{quoted(model.run_id)}'"
    found = search_versions(mlflow, by_run)
    return next((int(v.version) for v in found if v.tags.get(MODEL_TAG) == model.uri), None)


def _new_version(
    mlflow: MlflowClient, name: str, model: Model, tags: dict[str, str], description: str
) -> int:
    logged = models.logged_model(mlflow, model.uri)
    made = ask(
        f"register a version of {name!r}",
        mlflow.create_model_version,
        name,
        # Not models:/…: MLflow would look that up where its own environment points, not where we do.
        source=logged.artifact_location,
        run_id=model.run_id,
        tags={**tags, **_marks(model)},
        description=description,
        model_id=models.model_id(model.uri),
    )
    return int(made.version)


def _marks(model: Model) -> dict[str, str]:
    """What finds the model again: an SQLite registry keeps no model id."""
    return {MODEL_TAG: model.uri, models.DIGEST_TAG: model.digest, models.FAMILY_TAG: model.family}


def change_champion(name: str, move: Move) -> None:
    """Move the champion, if it still is `move.before`. One that is there already is left as it is.

    Raises:
        PromotionError: Another process moved the champion meanwhile.
    """
    mlflow = client()
    with _turn(name):
        last = _settled(mlflow, name)
        now = champion_number(mlflow, name)
        if now == move.to:
            return
        if now != move.before:
            raise _lost(name, move, now)
        crash.point("before the promotion is entered")
        entry, mine = ledger.claim(mlflow, name, move, follows=last.number if last else 0)
        if not mine:
            raise _lost(name, move, entry.move.to)
        _carry_out(mlflow, name, entry)
        now = champion_number(mlflow, name)
        if now != move.to:
            raise _lost(name, move, now)


def _settled(mlflow: MlflowClient, name: str) -> Entry | None:
    """The last entry of the ledger, carried out: whoever entered it may have been killed before that."""
    chain = ledger.entries(mlflow, name)
    if not chain or chain[-1].done:
        return chain[-1] if chain else None
    last = chain[-1]
    if champion_number(mlflow, name) == last.move.before and _exists(mlflow, name, last.move.to):
        _carry_out(mlflow, name, last)
    return ledger.mark_done(mlflow, name, last)


def _carry_out(mlflow: MlflowClient, name: str, entry: Entry) -> None:
    """Set the aliases as an entry says, and as later ones say that were made meanwhile."""
    while True:
        _set_aliases(mlflow, name, entry.move)
        ledger.mark_done(mlflow, name, entry)
        last = ledger.entries(mlflow, name)[-1]
        if last.number == entry.number:
            return
        entry = last


def _set_aliases(mlflow: MlflowClient, name: str, move: Move) -> None:
    number, before = str(move.to), move.before
    if before is not None:
        upsert("set an alias", mlflow.set_registered_model_alias, name, PREVIOUS, str(before))
    crash.point("before the champion changes")
    upsert("set an alias", mlflow.set_registered_model_alias, name, CHAMPION, number)
    crash.point("before the promotion is marked as done")


def _exists(mlflow: MlflowClient, name: str, number: int) -> bool:
    try:
        ask("read a version", mlflow.get_model_version, name, str(number))
    except TrackingError as error:
        if absent(error):
            return False
        raise
    return True


@contextmanager
def _turn(name: str) -> Iterator[None]:
    """One promotion of a model at a time on this machine, whatever folder the runs work in."""
    uri = tracking_uri()
    file = database_file(uri)
    folder = Path(tempfile.gettempdir()) if file is None else file.parent
    model = hashlib.sha256(f"{uri}\n{name}".encode()).hexdigest()[:24]
    lock = folder / f".ml-platform-{os.getuid()}-promote-{model}.lock"
    with exclusive(lock, what=f"promote a version of {name!r}"):
        yield


def _lost(name: str, move: Move, now: int | None) -> PromotionError:
    return PromotionError(
        f"promotion of {_shown(name, move.to)} lost the race: another run moved the champion of {name!r}",
        wanted=f"champion {_shown(name, move.before)}",
        got=f"champion {_shown(name, now)}",
        hint="run again: the gate then compares with the champion of now",
    )


def _shown(name: str, number: int | None) -> str:
    return "none" if number is None else f"models:/{name}/{number}"
