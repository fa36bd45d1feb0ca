"""Ports and servers: what `up` could take, and whether what is configured answers."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_platform.cli.checks import Check
from ml_platform.cli.probes import answer, port_owner
from ml_platform.cli.services import services
from ml_platform.tracking.uris import is_server, redact

PORTS = {4200: "Prefect", 5000: "MLflow"}


def check_ports() -> Sequence[Check]:
    """The two ports of `up`. Taken ones only matter to `up`."""
    told = services()
    ours = f"{told.prefect_url} {told.mlflow_url}" if told else ""
    return [_port(port, name, ours=f":{port}" in ours) for port, name in PORTS.items()]


def _port(port: int, name: str, *, ours: bool) -> Check:
    owner = None if ours else port_owner(port)
    return Check(
        name=f"port {port}",
        status="ok" if owner is None else "warn",
        found=f"our {name} server" if ours else owner or "free",
        wanted=f"free for {name}",
        reason="" if owner is None else "`up` would not start",
        next_step="" if owner is None else f"python -m ml_platform up --{name.lower()}-port PORT",
    )


def check_prefect() -> Sequence[Check]:
    """The configured Prefect API, if there is one."""
    told = services()
    url = configured_prefect_api() or (told.prefect_api_url if told else None)
    if url is None:
        embedded = "none configured: a temporary server per run"
        return [Check(name="Prefect API", status="ok", found=embedded, wanted="any")]
    return [
        _server("Prefect API", url, f"{url.rstrip('/')}/health", "unset PREFECT_API_URL for embedded runs")
    ]


def check_mlflow() -> Sequence[Check]:
    """The MLflow server of MLFLOW_TRACKING_URI, if it names one."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not is_server(uri):
        found = redact(uri) or "embedded: an SQLite file"
        return [Check(name="MLflow", status="ok", found=found, wanted="any")]
    return [
        _server("MLflow", uri, f"{uri.rstrip('/')}/health", "unset MLFLOW_TRACKING_URI for embedded runs")
    ]


def _server(name: str, url: str, health: str, next_step: str) -> Check:
    fault = answer(health)
    # A server that asks who we are is up; the client of the run brings the secret.
    up = fault is None or "401" in fault or "403" in fault
    return Check(
        name=name,
        status="ok" if up else "block",
        found=redact(url) if up else f"{redact(url)}: {redact(str(fault))}",
        wanted="an answer",
        reason="" if up else "it is configured, so runs would use it, and fail",
        next_step="" if up else f"start it, or {next_step}",
    )


def configured_prefect_api() -> str | None:
    """PREFECT_API_URL of the environment, prefect.toml here, or the active profile, in Prefect's order.

    Reads the files itself: importing Prefect takes two seconds.
    """
    named = os.environ.get("PREFECT_API_URL")
    if named:
        return named
    in_project = _toml(Path("prefect.toml")).get("api", {}).get("url")
    return str(in_project) if in_project else _profile_api()


def _profile_api() -> str | None:
    folder = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    profiles = _toml(Path(os.environ.get("PREFECT_PROFILES_PATH") or folder / "profiles.toml"))
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active")
    url = profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL")
    return str(url) if url else None


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, ValueError):
        return {}
