"""The registry: versions of a model, and the alias `champion` that only a won gate moves.

Promotion: a lock per model on this machine; inside it the champion is read again and must be the one that
the gate compared with; the candidate is tagged, `previous` is set, then `champion`, last: that is the
commit. MLflow's alias is an upsert without a condition, so it is read back once. Runs on other machines
can still collide in the instant between; the loser then learns it from that reading.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError, PromotionError, SpecError, TrackingError
from ml_platform.specs.references import Model, Version
from ml_platform.store import crash
from ml_platform.tracking import models
from ml_platform.tracking.locks import exclusive
from ml_platform.tracking.server import absent, ask, client
from ml_platform.tracking.uris import database_file, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
MODEL_TAG = "ml_platform.model"
HOLDOUT_TAG = "ml_platform.holdout"
PROMOTION_TAG = "ml_platform.promotion"
REPLACES_TAG = "ml_platform.replaces"
TAG_CHARACTERS = 100_000
PAGE = 1_000


def champion(name: str) -> Version | None:
    """The version that serves; None when the model or the alias is not there yet.

    Raises:
        TrackingError: MLflow could not be asked.
        DataError: The alias stands on a version that this platform did not log.
    """
    mlflow = client()
    number = _aliases(mlflow, name).get(CHAMPION)
    return None if number is None else _version(mlflow, name, number)


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
                hint=f"promote a version of {name!r} first: python -m flows.retrain",
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
    _make_registered(mlflow, name)
    used = {} if holdout is None else {HOLDOUT_TAG: holdout}
    marked = {str(key): str(value)[:TAG_CHARACTERS] for key, value in {**tags, **used}.items()}
    number = _registered(mlflow, name, model) or _new_version(mlflow, name, model, marked, description)
    crash.point("before the challenger changes")
    ask("set an alias", mlflow.set_registered_model_alias, name, CHALLENGER, str(number))
    return Version(name=name, version=number, model=model)


def promote(version: Version, expected: Version | None) -> Version:
    """Make `version` the champion, if the champion is still the one that the gate compared with.

    Args:
        version: The candidate that won its gate.
        expected: The champion that it was compared with; None when there was none.
    Returns:
        The champion, as read back. A promotion that was already done is left as it is.
    Raises:
        PromotionError: Another run moved the champion meanwhile; nothing was changed.
        TrackingError: MLflow failed; the old champion stands.
    """
    mlflow = client()
    with _turn(version.name):
        now = _champion_number(mlflow, version.name)
        if now == version.version:
            return version
        if now != (expected.version if expected else None):
            raise _lost(version, expected, now)
        _move_aliases(mlflow, version, now)
        after = _champion_number(mlflow, version.name)
        if after != version.version:
            raise _lost(version, version, after)
    return version


def still_champion(output: Version | None, name: str) -> str | None:
    """Why a promotion no longer stands; None while the champion is the one that it left."""
    now = champion(name)
    return None if now == output else f"the champion is now {_shown(name, now.version if now else None)}"


def holdout_uses(name: str, holdout: str) -> int:
    """How many registered versions of `name` were decided on these holdout rows.

    Args:
        name: The registered model; one that does not exist has used nothing.
        holdout: Fingerprint of the rows.
    """
    mlflow = client()
    wanted = f"name = '{_quoted(name)}' and tag.`{HOLDOUT_TAG}` = '{_quoted(holdout)}'"
    return sum(1 for _ in _search(mlflow, wanted))


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


def _champion_number(mlflow: MlflowClient, name: str) -> int | None:
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


def _make_registered(mlflow: MlflowClient, name: str) -> None:
    try:
        ask(f"read the registered model {name!r}", mlflow.get_registered_model, name)
    except TrackingError as error:
        if not absent(error):
            raise
        _create_registered(mlflow, name)


def _create_registered(mlflow: MlflowClient, name: str) -> None:
    try:
        ask(f"make the registered model {name!r}", mlflow.create_registered_model, name)
    except TrackingError as error:
        # Another process made it just now.
        if getattr(error.__cause__, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
            raise


def _registered(mlflow: MlflowClient, name: str, model: Model) -> int | None:
    by_run = f"name = '{_quoted(name)}' and run_id = '{_quoted(model.run_id)}'"
    found = _search(mlflow, by_run)
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


def _move_aliases(mlflow: MlflowClient, version: Version, now: int | None) -> None:
    name, number = version.name, str(version.version)
    marks = {REPLACES_TAG: "none" if now is None else str(now), PROMOTION_TAG: "approved"}
    for key, value in marks.items():
        ask("tag a version", mlflow.set_model_version_tag, name, number, key, value)
    if now is not None:
        ask("set an alias", mlflow.set_registered_model_alias, name, PREVIOUS, str(now))
    crash.point("before the champion changes")
    ask("set an alias", mlflow.set_registered_model_alias, name, CHAMPION, number)


def _search(mlflow: MlflowClient, wanted: str) -> Iterator[Any]:
    token = None
    while True:
        page = ask(
            "search versions", mlflow.search_model_versions, wanted, max_results=PAGE, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


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


def _lost(version: Version, expected: Version | None, now: int | None) -> PromotionError:
    return PromotionError(
        f"promotion of {version.uri} lost the race: another run moved the champion of {version.name!r}",
        wanted=f"champion {_shown(version.name, expected.version if expected else None)}",
        got=f"champion {_shown(version.name, now)}",
        hint="run again: the gate then compares with the champion of now",
    )


def _shown(name: str, number: int | None) -> str:
    return "none" if number is None else f"models:/{name}/{number}"


def _quoted(text: str) -> str:
    if "'" in text:
        raise SpecError(f"{text!r} holds a quote, which MLflow's search cannot take")
    return text
