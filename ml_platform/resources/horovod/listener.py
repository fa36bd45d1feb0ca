"""The driver's door for ranks on other machines: one address, one key, a deadline for whoever knocks."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from ml_platform.errors import RankError, ResourceStartError
from ml_platform.worker.channel import Channel
from ml_platform.worker.handshake import TIMEOUT_S, Caller, receive_caller
from ml_platform.worker.network import keep_alive

logger = logging.getLogger(__name__)

_PAUSE_S = 0.1
UNPROVEN = 64
"""Callers that may be in the middle of their handshake; more wait in the kernel's queue."""

OnCaller = Callable[[Caller, Channel], None]


class Listener:
    """Listens on a free port of `address`. Who proves to know `key` is handed to `on_caller`, in a thread.

    Each handshake has a thread of its own, so that a silent stranger holds nobody up.
    """

    def __init__(
        self, address: str, key: bytes, on_caller: OnCaller, *, port: int = 0, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._key, self._on_caller, self._timeout_s = key, on_caller, timeout_s
        self._free = threading.BoundedSemaphore(UNPROVEN)
        self._closing = threading.Event()
        self._socket = _bound(address, port)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="horovod-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let nobody in any more; who is in stays. Twice is harmless."""
        self._closing.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            self._free.acquire()
            try:
                connection, origin = self._socket.accept()
            except OSError as error:
                self._free.release()
                # One caller that hung up first, or no descriptor left for a while, does not close the door.
                if not self._closing.wait(_PAUSE_S):
                    logger.warning("a caller was lost: %s", error)
                continue
            threading.Thread(target=self._receive, args=(connection, origin), daemon=True).start()

    def _receive(self, connection: socket.socket, origin: object) -> None:
        try:
            caller, key = receive_caller(connection, self._key, timeout_s=self._timeout_s)
            keep_alive(connection)
        except (OSError, RankError) as error:
            logger.warning("%s: %s", origin, error)
            connection.close()
            return
        finally:
            self._free.release()
        self._on_caller(caller, Channel(connection, key, side="driver"))


def _bound(address: str, port: int) -> socket.socket:
    try:
        return socket.create_server((address, port), backlog=UNPROVEN)
    except OSError as error:
        raise ResourceStartError(
            f"the driver cannot listen for its ranks on {address}, port {port or 'any'}",
            got=error,
            hint="`horovod.network` and `horovod.port` in the placement say where it listens",
        ) from error
