"""Metrics from executors to the driver while a Spark job runs.

One TCP listener on the driver's Spark interface. A message is a line `<hmac-sha256 in hex> <json>\n`,
signed with a key that only this stream's senders know; a connection whose line is unsigned, too long or
late is dropped. Nothing is ever unpickled. The stream is a convenience: a sender that cannot connect falls
silent, and whoever opened the stream fills in afterwards from what the job returns.
"""

from __future__ import annotations

import contextvars
import hashlib
import hmac
import json
import logging
import secrets
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType

logger = logging.getLogger(__name__)

LINE_BYTES = 64 * 1024
CONNECTIONS = 16
FIRST_LINE_S = 5.0
"""A connection must prove in this time that it knows the key."""

SEND_S = 2.0
DRAIN_S = 5.0
"""How long closing waits for senders to finish."""

OnMetrics = Callable[[Mapping[str, float], int], None]


@dataclass(frozen=True)
class StreamAddress:
    """What a sender needs: where to connect, and the key. Travels inside the job."""

    host: str
    port: int
    key: bytes


class MetricSender:
    """The executor's half. Never raises: a broken stream must not fail the work it reports on."""

    def __init__(self, address: StreamAddress) -> None:
        self._key = address.key
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.create_connection((address.host, address.port), timeout=SEND_S)
            self._socket.sendall(signed_line(self._key, {}))
        except OSError as error:
            self._give_up(error)

    def send(self, metrics: Mapping[str, float], step: int) -> None:
        """Send the metrics of one step."""
        if self._socket is None:
            return
        try:
            self._socket.sendall(signed_line(self._key, {"step": step, "metrics": dict(metrics)}))
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Flush and hang up. Closing twice is harmless."""
        if self._socket is not None:
            with suppress(OSError):  # the listener may have gone first
                self._socket.shutdown(socket.SHUT_WR)
            self._socket.close()
            self._socket = None

    def _give_up(self, error: OSError) -> None:
        logger.debug("metrics do not reach the driver as they happen: %s", error)
        if self._socket is not None:
            self._socket.close()
        self._socket = None


class StepDelivery:
    """Hands each step to `on_metrics` once: from the stream, or from the history at the end."""

    def __init__(self, on_metrics: OnMetrics) -> None:
        self._on_metrics = on_metrics
        self._delivered: set[int] = set()
        self._lock = threading.Lock()

    def deliver(self, metrics: Mapping[str, float], step: int) -> None:
        """Hand over a step unless it was. A step whose hand-over raised counts as not delivered."""
        with self._lock:
            if step not in self._delivered:
                self._on_metrics(metrics, step)
                self._delivered.add(step)

    def fill(self, history: Mapping[str, list[float]]) -> None:
        """Hand over the steps of `history` ({metric: value per step}) that have not been, in order."""
        for step in range(max((len(values) for values in history.values()), default=0)):
            self.deliver({name: values[step] for name, values in history.items() if step < len(values)}, step)


@contextmanager
def open_stream(host: str, on_metrics: OnMetrics) -> Iterator[StreamAddress | None]:
    """Listen on `host`, on a free port, while the code inside runs a job.

    `on_metrics(metrics, step)` is called one message at a time, from a thread that sees the caller's context
    variables. When it raises, the stream ends quietly.

    Yields:
        The address for senders; None where the host cannot be listened on.
    """
    try:
        listener = _Listener(host, on_metrics)
    except OSError as error:
        logger.debug("no metrics while the job runs: cannot listen on %s: %s", host, error)
        yield None
        return
    with listener:
        yield listener.address


def signed_line(key: bytes, message: Mapping[str, object]) -> bytes:
    """A message as it goes over the wire."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return _signature(key, body) + b" " + body + b"\n"


def verified(key: bytes, line: bytes) -> dict[str, object] | None:
    """The message of a line that was signed with `key`; None for any other."""
    signature, _, body = line.rstrip(b"\n").partition(b" ")
    if not hmac.compare_digest(signature, _signature(key, body)):
        return None
    message = json.loads(body)
    return message if isinstance(message, dict) else None


def _signature(key: bytes, body: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).hexdigest().encode()


class _Listener:
    def __init__(self, host: str, on_metrics: OnMetrics) -> None:
        self._server = socket.create_server((host, 0), backlog=CONNECTIONS)
        self.address = StreamAddress(host, self._server.getsockname()[1], secrets.token_bytes(32))
        self._stop, self._stopped = socket.socketpair()
        self._on_metrics = on_metrics
        self._delivering = threading.Lock()
        self._readers: list[threading.Thread] = []
        self._connections: set[socket.socket] = set()
        self._acceptor = threading.Thread(target=self._accept, name="metric-stream", daemon=True)

    def __enter__(self) -> _Listener:
        self._context = contextvars.copy_context()
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.close()
        self._acceptor.join(DRAIN_S)
        self._stopped.close()
        self._server.close()
        wait_s = DRAIN_S if kind is None else 0.0
        for reader in self._readers:
            reader.join(wait_s)
        for connection in list(self._connections):
            with suppress(OSError):  # its reader closed it meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        """Accept until told to stop, then whoever has connected by then: they may have said all they know."""
        self._server.setblocking(False)
        while self._stopped not in select.select([self._server, self._stopped], [], [])[0]:
            self._accept_waiting()
        self._accept_waiting()

    def _accept_waiting(self) -> None:
        with suppress(BlockingIOError, ConnectionError):  # nobody waits any more, or gave up waiting
            while True:
                self._start_reader(self._server.accept()[0])

    def _start_reader(self, connection: socket.socket) -> None:
        if len(self._connections) >= CONNECTIONS:
            connection.close()
            return
        self._connections.add(connection)
        reader = threading.Thread(target=self._read, args=(connection,), daemon=True)
        reader.start()
        self._readers = [*(known for known in self._readers if known.is_alive()), reader]

    def _read(self, connection: socket.socket) -> None:
        connection.settimeout(FIRST_LINE_S)
        try:
            with connection.makefile("rb") as lines:
                while line := lines.readline(LINE_BYTES):
                    message = verified(self.address.key, line)
                    if message is None or not line.endswith(b"\n"):
                        logger.debug("dropped a connection to the metric stream: unsigned or too long")
                        return
                    connection.settimeout(None)
                    self._deliver(message)
        except Exception as error:  # noqa: BLE001  (the stream is a convenience: it ends, the job goes on)
            logger.debug("the metric stream ended: %s: %s", type(error).__name__, error)
        finally:
            connection.close()
            self._connections.discard(connection)

    def _deliver(self, message: Mapping[str, object]) -> None:
        metrics, step = message.get("metrics"), message.get("step")
        if isinstance(metrics, dict) and isinstance(step, int):
            with self._delivering:
                self._context.run(self._on_metrics, metrics, step)
