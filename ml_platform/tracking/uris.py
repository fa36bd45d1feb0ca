"""Where MLflow is, with what secret, and how a person opens it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from ml_platform.store.location import home

CREDENTIALS = re.compile(r"(?<=://)[^\s/'\"<>]*@")
SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def tracking_uri() -> str:
    """URI of the MLflow server or database: `$MLFLOW_TRACKING_URI`, or an SQLite file under `home()`.

    Returns:
        The URI without user name and password when it is a server's: `client()` hands those to MLflow by
        another way, so that no message, tag or artifact of MLflow's can repeat them.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if not named:
        return f"sqlite:///{home() / 'mlflow.db'}"
    parts = urlsplit(named)
    if is_server(named) and parts.username and parts.password:
        return _without_credentials(parts)
    return named


def is_server(uri: str) -> bool:
    """Whether MLflow answers at `uri` over HTTP."""
    return urlsplit(uri).scheme in {"http", "https"}


def database_file(uri: str) -> Path | None:
    """The file of an SQLite URI; None for anything else."""
    scheme, _, rest = uri.partition(":///")
    return Path(rest).absolute() if scheme.split("+")[0] == "sqlite" and rest else None


def credentials() -> tuple[str, str] | None:
    """User name and password that the person wrote into `$MLFLOW_TRACKING_URI`."""
    parts = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if parts.username and parts.password:
        return unquote(parts.username), unquote(parts.password)
    return None


def redact(text: str) -> str:
    """`text` without passwords and tokens: those in URIs, and the ones MLflow was given.

    >>> redact("failed: http://ada:canary@host:5000/api")
    'failed: http://***@host:5000/api'
    """
    clean = CREDENTIALS.sub("***@", text)
    for secret in _secrets():
        clean = clean.replace(secret, "***")
    return clean


def ui_command() -> str:
    """The command that opens MLflow's pages on a database, ready to type in this folder."""
    program = Path(sys.executable).parent / "mlflow"
    shown = _as_typed(program) if program.exists() else "mlflow"
    uri = tracking_uri()
    file = database_file(uri)
    target = uri if file is None else f"sqlite:///{_as_typed(file)}"
    return f"{shlex.quote(shown)} ui --backend-store-uri {shlex.quote(redact(target))}"


def _without_credentials(parts: SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _secrets() -> list[str]:
    named = [os.environ.get(variable, "") for variable in SECRET_VARIABLES]
    written = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).password or ""
    # Shorter ones would blot out ordinary words.
    return [secret for secret in (*named, written, unquote(written)) if len(secret) > 3]


def _as_typed(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
