"""How two ends of a TCP connection prove to each other that they know the job's key.

    driver → rank   nonce
    rank → driver   role, number, nonce, HMAC(key, everything so far)
    driver → rank   HMAC(key, the same, the other way)

Fixed lengths, nothing pickled. Both sides derive a key for this connection alone, so that what was heard
on one cannot be replayed on another. A stranger gets a nonce and a deadline, and nothing else.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import struct
import time
from dataclasses import dataclass
from typing import Literal

from ml_platform.errors import RankError

TIMEOUT_S = 10.0
Role = Literal["keeper", "rank"]

_NONCE_BYTES = 32
_MAC_BYTES = 32
_HELLO = struct.Struct(">6sI")
_ROLES: dict[Role, bytes] = {"keeper": b"keeper", "rank": b"rank  "}


@dataclass(frozen=True)
class Caller:
    """Who called: the keeper of a task (`number` is its partition), or a rank."""

    role: Role
    number: int


def introduce(
    connection: socket.socket, key: bytes, caller: Caller, *, timeout_s: float = TIMEOUT_S
) -> bytes:
    """Prove to the driver who calls. Returns the key of this connection.

    Raises:
        RankError: The other end does not know the job's key.
        OSError: It hung up, or took longer than `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    theirs = _read(connection, _NONCE_BYTES, deadline)
    hello = _HELLO.pack(_ROLES[caller.role], caller.number) + secrets.token_bytes(_NONCE_BYTES)
    connection.sendall(hello + _sign(key, b"rank", theirs, hello))
    if not hmac.compare_digest(_read(connection, _MAC_BYTES, deadline), _sign(key, b"driver", theirs, hello)):
        raise RankError("refused a driver that does not know this job's key")
    connection.settimeout(None)
    return _sign(key, b"session", theirs, hello)


def receive_caller(
    connection: socket.socket, key: bytes, *, timeout_s: float = TIMEOUT_S
) -> tuple[Caller, bytes]:
    """Have a caller prove that it belongs to the job. Returns who it is, and the key of this connection.

    Raises:
        RankError: It does not know the job's key.
        OSError: It hung up, or took longer than `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    nonce = secrets.token_bytes(_NONCE_BYTES)
    connection.settimeout(timeout_s)
    connection.sendall(nonce)
    hello = _read(connection, _HELLO.size + _NONCE_BYTES, deadline)
    if not hmac.compare_digest(_read(connection, _MAC_BYTES, deadline), _sign(key, b"rank", nonce, hello)):
        raise RankError("refused a caller that does not know this job's key")
    connection.sendall(_sign(key, b"driver", nonce, hello))
    connection.settimeout(None)
    name, number = _HELLO.unpack(hello[: _HELLO.size])
    role = next(role for role, code in _ROLES.items() if code == name)
    return Caller(role, number), _sign(key, b"session", nonce, hello)


def _sign(key: bytes, purpose: bytes, nonce: bytes, hello: bytes) -> bytes:
    return hmac.digest(key, purpose + b"\0" + nonce + hello, "sha256")


def _read(connection: socket.socket, count: int, deadline: float) -> bytes:
    data = b""
    while len(data) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the handshake took too long")
        connection.settimeout(left)
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("the other end hung up in the middle of the handshake")
        data += part
    return data
