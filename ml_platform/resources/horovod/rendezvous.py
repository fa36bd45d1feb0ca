"""The meeting point of Horovod's ranks: raw bytes under /scope/key, on one interface, for one job.

Speaks what Horovod's C++ HTTPStore expects: PUT stores, GET answers 200 with the bytes or 404, DELETE
forgets. Nothing is ever unpickled, and what can be stored is bounded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VALUE_BYTES = 1 << 20
"""Largest value."""
STORE_BYTES = 64 << 20
"""All values together."""
_REQUEST_TIMEOUT_S = 5
_POLL_S = 0.05


@contextmanager
def rendezvous(address: str) -> Iterator[int]:
    """Serve an empty store on a free port of `address`.

    Yields:
        The port.
    """
    server = _Server((address, 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,), name="rendezvous", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        # The parent looks its own name up, which can take seconds without a name server.
        self.socket.bind(self.server_address)
        host, port = self.socket.getsockname()
        self.server_address = host, port
        self.server_name, self.server_port = host, port
        self._values: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def get(self, path: str) -> bytes | None:
        with self._lock:
            return self._values.get(path)

    def put(self, path: str, value: bytes) -> bool:
        with self._lock:
            held = sum(len(key) + len(other) for key, other in self._values.items() if key != path)
            if held + len(path) + len(value) > STORE_BYTES:
                return False
            self._values[path] = value
            return True

    def delete(self, path: str) -> None:
        with self._lock:
            self._values.pop(path, None)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _REQUEST_TIMEOUT_S

    def do_GET(self) -> None:
        value = self.server.get(self.path) if self._is_key() else None
        self._answer(HTTPStatus.NOT_FOUND if value is None else HTTPStatus.OK, value or b"")

    def do_PUT(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not self._is_key() or not length.isdecimal():
            self._answer(HTTPStatus.BAD_REQUEST)
        elif int(length) > VALUE_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            value = self.rfile.read(int(length))
            if len(value) < int(length):
                return  # a rank that died in the middle of a word: others would take it for whole
            stored = self.server.put(self.path, value)
            self._answer(HTTPStatus.OK if stored else HTTPStatus.INSUFFICIENT_STORAGE)

    def do_DELETE(self) -> None:
        self.server.delete(self.path)
        self._answer(HTTPStatus.OK)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the parent's name)
        """Requests are not logged."""

    def _is_key(self) -> bool:
        parts = self.path.split("/")
        return len(parts) == 3 and all(parts[1:])

    def _answer(self, status: HTTPStatus, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
