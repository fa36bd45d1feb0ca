"""Short questions to the machine: who listens, what answers."""

from __future__ import annotations

import json
import socket
import urllib.request
from http.client import HTTPException
from typing import Any

import psutil

TIMEOUT_S = 1.0


def responds(url: str) -> bool:
    """Whether `url` answers with a 2xx code within a second."""
    return answer(url) is None


def answer(url: str) -> str | None:
    """Why `url` does not answer with a 2xx code within a second; None when it does."""
    try:
        with _open(url, None):
            return None
    except (OSError, HTTPException, ValueError) as error:
        return str(getattr(error, "reason", None) or error) or type(error).__name__


def get_json(url: str, *, body: Any = None) -> Any:
    """The JSON answer; a body makes it a POST. None when there is no answer or no JSON."""
    try:
        with _open(url, body) as response:
            return json.load(response)
    except (OSError, HTTPException, ValueError):
        return None


def _open(url: str, body: Any) -> Any:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"not an http address: {url}")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    # Loopback is never behind a proxy, whatever the environment says.
    local = url.startswith(("http://127.0.0.1", "http://localhost"))
    handlers = [urllib.request.ProxyHandler({})] if local else []
    return urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(TIMEOUT_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def port_owner(port: int) -> str | None:
    """Who listens on a TCP port, in words; None when nobody does."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,):
            return _named(connection.pid)
    return "a process that may not be seen" if listens(port) else None


def _named(pid: int | None) -> str:
    if pid is None:
        return "a process of another user"
    try:
        return f"{' '.join(psutil.Process(pid).cmdline())[:60]} (pid {pid})"
    except psutil.Error:
        return f"pid {pid}"
