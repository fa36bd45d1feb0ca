"""Metrics from executors: heard as they happen, from nobody else, each step once; never a reason to fail."""

from __future__ import annotations

import contextlib
import contextvars
import socket
import threading
from collections.abc import Mapping

import pytest

from ml_platform.resources.metric_stream import (
    LINE_BYTES,
    MetricSender,
    StepDelivery,
    StreamAddress,
    open_stream,
    signed_line,
    verified,
)


class Heard:
    """Collects what is delivered, and says when a number of steps has arrived."""

    def __init__(self, awaited: int = 1) -> None:
        self.steps: list[tuple[int, dict[str, float]]] = []
        self._awaited = awaited
        self.arrived = threading.Event()

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        self.steps.append((step, dict(metrics)))
        if len(self.steps) >= self._awaited:
            self.arrived.set()


def test_steps_arrive_while_the_sender_still_works() -> None:
    heard = Heard(awaited=2)
    with open_stream("127.0.0.1", heard) as address:
        sender = MetricSender(address)
        sender.send({"loss": 2.0}, 0)
        sender.send({"loss": 1.0}, 1)
        assert heard.arrived.wait(10)
        sender.close()
    assert heard.steps == [(0, {"loss": 2.0}), (1, {"loss": 1.0})]


def test_late_messages_are_drained_when_the_stream_closes() -> None:
    """A job may return before its last messages were read; they are not lost."""
    heard = Heard()
    with open_stream("127.0.0.1", heard) as address:
        sender = MetricSender(address)
        for step in range(500):
            sender.send({"loss": 1.0 / (step + 1)}, step)
        sender.close()
    assert [step for step, _ in heard.steps] == list(range(500))


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        signed_line(b"another key", {"step": 7, "metrics": {"loss": 0.0}}),
        b"x" * (LINE_BYTES + 10) + b"\n",
        b"\x80\x04\x95pickle\n",
    ],
    ids=["http", "wrong key", "too long", "pickle"],
)
def test_strangers_are_dropped_and_the_real_sender_is_still_heard(line: bytes) -> None:
    heard = Heard()
    with open_stream("127.0.0.1", heard) as address:
        with socket.create_connection((address.host, address.port), timeout=10) as stranger:
            _say(stranger, line)
            assert _until_closed(stranger) == b""
        sender = MetricSender(address)
        sender.send({"loss": 1.0}, 0)
        sender.close()
    assert heard.steps == [(0, {"loss": 1.0})]


def test_a_line_signed_over_other_bytes_is_not_verified() -> None:
    line = signed_line(b"key", {"step": 1})
    assert verified(b"key", line) == {"step": 1}
    assert verified(b"key", line.replace(b"1}", b"2}")) is None


def test_a_sender_without_a_listener_is_silent() -> None:
    """Progress that nobody hears must not fail a training."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    sender = MetricSender(StreamAddress("127.0.0.1", port, b"key"))
    sender.send({"loss": 1.0}, 0)
    sender.close()
    sender.close()


def test_a_listener_that_goes_away_is_survived() -> None:
    """The job failed and the driver hung up: an executor that still sends must not fail on that."""
    orphans: list[MetricSender] = []

    def fail() -> None:
        with open_stream("127.0.0.1", Heard()) as address:
            orphans.append(MetricSender(address))
            raise RuntimeError("the job failed")

    with pytest.raises(RuntimeError, match="the job failed"):
        fail()
    for step in range(1_000):
        orphans[0].send({"loss": 1.0}, step)
    orphans[0].close()


def test_a_host_that_cannot_be_listened_on_gives_no_stream() -> None:
    with open_stream("192.0.2.1", Heard()) as address:
        assert address is None


def test_a_failing_consumer_ends_the_stream_and_keeps_the_step_for_later() -> None:
    """What the stream could not hand over, the history does; there the failure reaches the caller."""
    seen: list[int] = []

    def consume(metrics: Mapping[str, float], step: int) -> None:
        if step == 1 and 1 not in failed:
            failed.add(1)
            raise RuntimeError("the server is away")
        seen.append(step)

    failed: set[int] = set()
    delivery = StepDelivery(consume)
    with open_stream("127.0.0.1", delivery.deliver) as address:
        sender = MetricSender(address)
        for step in range(3):
            sender.send({"loss": 1.0}, step)
        sender.close()
    delivery.fill({"loss": [1.0, 1.0, 1.0]})
    assert seen == [0, 1, 2]


def test_every_step_is_delivered_once_whoever_brings_it() -> None:
    heard = Heard()
    delivery = StepDelivery(heard)
    delivery.deliver({"a": 1.0}, 1)
    delivery.deliver({"a": 9.0}, 1)
    delivery.fill({"a": [0.0, 1.0, 2.0], "b": [5.0]})
    assert heard.steps == [(1, {"a": 1.0}), (0, {"a": 0.0, "b": 5.0}), (2, {"a": 2.0})]


def test_the_consumer_sees_the_callers_context() -> None:
    """Progress is found through a context variable: the listening thread must have it."""
    task = contextvars.ContextVar("task", default="none")
    task.set("train_xgboost")
    seen: list[str] = []
    with open_stream("127.0.0.1", lambda metrics, step: seen.append(task.get())) as address:
        sender = MetricSender(address)
        sender.send({}, 0)
        sender.close()
    assert seen == ["train_xgboost"]


def test_nothing_listens_after_the_stream() -> None:
    with open_stream("127.0.0.1", Heard()) as address:
        pass
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((address.host, address.port), timeout=10)


def _say(connection: socket.socket, line: bytes) -> None:
    with contextlib.suppress(OSError):  # it may be dropped before it has said all
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)


def _until_closed(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1)
    except ConnectionResetError:
        return b""
