"""Signed messages over a socket: between a rank and the driver half that started it.

A frame is the length of its payload (8 bytes), HMAC-SHA256 (32 bytes), payload. The signature covers the
direction, the frame's number and the payload, so that a frame can neither be forged, replayed nor sent
back, and it is checked before anything is unpickled.
"""

from __future__ import annotations

import hmac
import pickle
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Literal

from ml_platform.errors import RankError
from ml_platform.worker.messages import Message

KEY_BYTES = 32
LIMIT_BYTES = 1 << 30
"""Largest message. A longer one is refused before it is read."""

Side = Literal["driver", "rank"]

_LENGTH = struct.Struct(">Q")
_MAC_BYTES = 32


class Channel:
    """One end of the connection. Any thread may send; one thread receives.

    Attributes:
        heard_at: When the last byte came, of a message that may not be whole yet; by the monotonic clock.
    """

    def __init__(
        self, connection: socket.socket, key: bytes, *, side: Side, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        self._connection = connection
        self._key = key
        self._out, self._in = (b"d", b"r") if side == "driver" else (b"r", b"d")
        self._limit_bytes = limit_bytes
        self._sent = self._received = 0
        self._sending = threading.Lock()
        self.heard_at = time.monotonic()

    @property
    def address(self) -> str:
        """This end's own, for a connection over a network."""
        return str(self._connection.getsockname()[0])

    def send(self, message: Message) -> None:
        """Send one message.

        Raises:
            RankError: It is larger than the limit.
            OSError: The other end is gone.
        """
        payload = pickle.dumps(message, protocol=5)
        if len(payload) > self._limit_bytes:
            raise RankError(
                f"a message of {len(payload):,} bytes is too large to send",
                wanted=f"at most {self._limit_bytes:,} bytes",
            )
        with self._sending:
            signature = self._sign(self._out, self._sent, payload)
            self._sent += 1
            self._connection.sendall(_LENGTH.pack(len(payload)) + signature)
            self._connection.sendall(payload)

    def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            EOFError: The other end is gone.
            RankError: The frame is too large, is not signed with this connection's key, or holds what cannot
                be imported here.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if length > self._limit_bytes:
            raise RankError(
                "refused a message that is too large",
                wanted=f"at most {self._limit_bytes:,} bytes",
                got=f"{length:,} bytes",
            )
        signature = self._read(_MAC_BYTES)
        payload = self._read(length)
        if not hmac.compare_digest(signature, self._sign(self._in, self._received, payload)):
            raise RankError("refused a message that is not signed with this job's key")
        self._received += 1
        try:
            message: Message = pickle.loads(payload)
        except Exception as error:
            raise RankError(
                "a message cannot be opened here",
                wanted="modules and versions as at the other end",
                got=f"{type(error).__name__}: {error}",
            ) from error
        return message

    def hang_up(self) -> None:
        """Send nothing any more; what the other end still says is received."""
        with suppress(OSError):  # the other end hung up first
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Hang up. Whoever waits in `receive`, on either end, gets an EOFError."""
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the other end hung up first
        finally:
            self._connection.close()

    def _sign(self, direction: bytes, number: int, payload: bytes) -> bytes:
        signer = hmac.new(self._key, direction + _LENGTH.pack(number), "sha256")
        signer.update(payload)
        return signer.digest()

    def _read(self, count: int) -> bytes:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            try:
                read = self._connection.recv_into(view)
            except OSError as error:
                raise EOFError("the connection broke") from error
            if read == 0:
                raise EOFError("the other end hung up")
            self.heard_at = time.monotonic()
            view = view[read:]
        return bytes(data)
