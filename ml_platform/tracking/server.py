"""The way to MLflow: one client, questions that end in TrackingError, a preflight.

Nothing here happens at import. The first `client()` sets MLflow's environment variables that the person
has not set, and sends MLflow's own messages to the log `ml_platform.mlflow`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from ml_platform.errors import TrackingError
from ml_platform.tracking.locks import exclusive
from ml_platform.tracking.uris import (
    credentials,
    database_file,
    is_server,
    redact,
    tracking_uri,
    ui_command,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

P = ParamSpec("P")
T = TypeVar("T")

ALLOW_PICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
SETTINGS = {
    # MLflow's own: 7 retries of 120 s, about four minutes per call when a server is down.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.2",
    ALLOW_PICKLE: "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
CHECK_TIMEOUT_S = 6
PASSING_WAITS_S = (0.1, 0.3, 1.0, 3.0)
EMBEDDED = "unset MLFLOW_TRACKING_URI to use the embedded database"

chatter = logging.getLogger("ml_platform.mlflow")


def client() -> MlflowClient:
    """A client of the MLflow at `tracking_uri()`. Safe to use from several threads.

    Raises:
        TrackingError: The database cannot be opened or made.
    """
    uri = tracking_uri()
    _prepare(uri)
    from mlflow import MlflowClient

    return ask("open MLflow", MlflowClient, tracking_uri=uri)


def ask(what: str, question: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """`question(*args, **kwargs)`, with MLflow's errors turned into TrackingError, its cause kept.

    What passes is asked again: a locked SQLite file, whose statement was rolled back, so that nothing happens
    twice; and an entity of MLflow's that met `pyspark.ml` while another thread was importing it.
    """
    waits = iter(PASSING_WAITS_S)
    while True:
        try:
            return question(*args, **kwargs)
        except Exception as error:
            wait_s = next(waits, None) if _passes(error) else None
            if wait_s is None:
                if not isinstance(error, _foreign()):
                    raise
                raise _translated(what, error) from _scrubbed(error)
        time.sleep(wait_s)


def refused(error: TrackingError) -> bool:
    """Whether MLflow understood the request and said no; asking again would not help."""
    status = getattr(error.__cause__, "get_http_status_code", None)
    return status is not None and status() < 500


def absent(error: TrackingError) -> bool:
    """Whether MLflow answered that what was asked for does not exist."""
    return getattr(error.__cause__, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def check_tracking() -> None:
    """Ask MLflow one small question, so that a run does not start in vain.

    Raises:
        TrackingError: Within about 15 s, when MLflow is down, refuses, or answers with an error.
    """
    uri = tracking_uri()
    if is_server(uri):
        _check_server(uri)
    else:
        ask("list experiments", client().search_experiments, max_results=1)


def how_to_open(run_id: str | None = None) -> str:
    """The address of a run's page, or of MLflow's when there is no run; without a server, a command."""
    uri = tracking_uri()
    if not is_server(uri):
        return ui_command()
    root = redact(uri).rstrip("/")
    if run_id is None:
        return root
    run = ask(f"read run {run_id}", client().get_run, run_id)
    return f"{root}/#/experiments/{run.info.experiment_id}/runs/{run_id}"


def _prepare(uri: str) -> None:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    secret = credentials() if is_server(uri) else None
    if secret is not None:
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = secret
    _quieten()
    if database_file(uri) is not None:
        _make_database(uri)


@lru_cache(maxsize=16)
def _make_database(uri: str) -> None:
    """Let MLflow make or check its tables, one process at a time: two at once would break them."""
    from mlflow import MlflowClient

    file = database_file(uri)
    assert file is not None
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise TrackingError(f"the folder of MLflow's database {file} cannot be made", got=error) from error
    with exclusive(file.with_name(file.name + ".lock"), what="open MLflow's database", timeout_s=120):
        opened = ask("open MLflow's database", MlflowClient, tracking_uri=uri)
        ask("open MLflow's database", opened.search_experiments, max_results=1)


@lru_cache(maxsize=1)
def _quieten() -> None:
    import mlflow  # noqa: F401  (its import installs the handlers that are replaced here)

    for name in ("mlflow", "alembic"):
        library = logging.getLogger(name)
        library.handlers, library.propagate = [_Chatter()], False
    logging.getLogger("urllib3.connectionpool").addFilter(_not_about_mlflow)


class _Chatter(logging.Handler):
    """Sends a library's messages to our log, as information whatever they call themselves."""

    def emit(self, record: logging.LogRecord) -> None:
        chatter.info("%s %s: %s", record.levelname, record.name, redact(record.getMessage()))


def _not_about_mlflow(record: logging.LogRecord) -> bool:
    if "mlflow" not in record.getMessage():
        return True
    chatter.info("%s", redact(record.getMessage()))
    return False


def _check_server(uri: str) -> None:
    _prepare(uri)
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    answer = ask(
        "answer",
        http_request,
        get_default_host_creds(uri.rstrip("/")),  # type: ignore[no-untyped-call]
        "/api/2.0/mlflow/experiments/search",
        "POST",
        json={"max_results": 1},
        timeout=CHECK_TIMEOUT_S,
        max_retries=1,
        backoff_factor=0,
        raise_on_status=False,
    )
    _must_be_mlflow(uri, answer)


def _must_be_mlflow(uri: str, answer: Any) -> None:
    reason = f"{answer.status_code} {answer.reason}"
    if answer.status_code in {401, 403}:
        hint = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    elif answer.status_code >= 500:
        hint = f"look into that server's log and restart it, or {EMBEDDED}"
    elif answer.status_code != 200 or not answer.text.lstrip().startswith("{"):
        hint = f"is another program listening there? Correct MLFLOW_TRACKING_URI, or {EMBEDDED}"
    else:
        return
    raise TrackingError(
        f"the MLflow server {redact(uri)} does not serve",
        wanted="an answer from its tracking API",
        got=reason,
        evidence=redact(answer.text[:300]) or None,
        hint=hint,
    )


def _translated(what: str, error: Exception) -> TrackingError:
    uri = tracking_uri()
    return TrackingError(
        f"MLflow at {redact(uri)} could not {what}",
        got=redact(_reason(error)),
        hint=_hint(uri, str(error)),
    )


def _foreign() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    # ImportError: a database whose driver is not installed.
    return MlflowException, RequestException, SQLAlchemyError, OSError, ImportError


def _reason(error: Exception) -> str:
    """The first thing that went wrong below, in one line; MLflow wraps it in a paragraph."""
    for below in reversed(list(_chain(error))):
        if isinstance(below, TimeoutError):
            return "no answer in time (timed out)"
        if isinstance(below, OSError) and below.strerror:
            return f"{below.strerror} ({type(below).__name__})"
    line = " ".join(str(error).split())
    return line if len(line) <= 400 else line[:400] + "…"


def _hint(uri: str, text: str) -> str:
    if "out-of-date database schema" in text:
        return "another version of MLflow made this database; back it up, then: mlflow db upgrade URI"
    if is_server(uri):
        address = urlsplit(uri).netloc.rpartition("@")[2]
        return f"is the MLflow server at {address} up? Start it, or {EMBEDDED}"
    return "is the place of the database writable, and the database whole?"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _scrubbed(error: Exception) -> Exception:
    """The error itself, its causes included, with passwords taken out of their texts."""
    for link in _chain(error):
        link.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in link.args)
        if isinstance(getattr(link, "message", None), str):
            link.message = redact(link.message)  # type: ignore[attr-defined]
    return error


def _passes(error: Exception) -> bool:
    return any(text in str(error) for text in ("database is locked", "cannot access submodule 'ml'"))
