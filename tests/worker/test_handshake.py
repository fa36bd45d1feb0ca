"""Before a message is opened, both ends have proved that they know the job's key."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from ml_platform.errors import RankError, ResourceStartError
from ml_platform.resources.horovod.listener import Listener
from ml_platform.worker import messages
from ml_platform.worker.channel import Channel
from ml_platform.worker.handshake import Caller, introduce, receive_caller

KEY = b"k" * 32
OTHER = b"o" * 32


class Door:
    """A listener that keeps who was let in."""

    def __init__(self) -> None:
        self.let_in: list[tuple[Caller, Channel]] = []
        self.somebody = threading.Event()
        self.listener = Listener("127.0.0.1", KEY, self._on_caller)

    def _on_caller(self, caller: Caller, channel: Channel) -> None:
        self.let_in.append((caller, channel))
        self.somebody.set()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.listener.port), timeout=20)


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.listener.close()
    for _, channel in door.let_in:
        channel.close()


def test_a_rank_is_let_in_and_heard(door: Door) -> None:
    connection = door.connect()
    key = introduce(connection, KEY, Caller("rank", 3))
    rank = Channel(connection, key, side="rank")
    rank.send(messages.Beat(7))
    assert door.somebody.wait(20)
    caller, channel = door.let_in[0]
    assert caller == Caller("rank", 3)
    assert channel.receive() == messages.Beat(7)
    rank.close()


def test_silent_strangers_hold_nobody_up(door: Door) -> None:
    """One that only connects, one that sends a little."""
    silent, slow = door.connect(), door.connect()
    slow.sendall(b"x")
    connection = door.connect()
    introduce(connection, KEY, Caller("keeper", 0))
    assert door.somebody.wait(20)
    for stranger in (silent, slow, connection):
        stranger.close()


def test_a_stranger_is_refused_and_learns_nothing(door: Door) -> None:
    """Garbage of any length, and a caller with another key: hung up on, before anything is unpickled."""
    with door.connect() as stranger:
        stranger.sendall(b"cos\nmkdir\n(S'/nowhere'\ntR." * 20)
        assert len(_all(stranger)) == 32, "the nonce, and nothing else"
    with door.connect() as stranger, pytest.raises((OSError, RankError)):
        introduce(stranger, OTHER, Caller("rank", 0))
    assert door.let_in == []


def test_what_was_heard_cannot_be_said_again() -> None:
    """The words of one handshake do not open another."""
    heard = _heard_by_a_listener_in_the_middle()
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        driver = pool.submit(receive_caller, ours, KEY, timeout_s=5)
        theirs.sendall(heard)
        with pytest.raises(RankError, match="does not know this job's key"):
            driver.result()


def _heard_by_a_listener_in_the_middle() -> bytes:
    """What a real rank says to a driver that sends a nonce of zeros."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        rank = pool.submit(introduce, theirs, KEY, Caller("rank", 1), timeout_s=5)
        ours.sendall(bytes(32))
        heard = ours.recv(200)
        ours.close()
        assert isinstance(rank.exception(), OSError)
    return heard


def test_a_driver_that_does_not_know_the_key_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        rank = pool.submit(introduce, theirs, KEY, Caller("rank", 0), timeout_s=5)
        ours.sendall(bytes(32))
        ours.recv(200)
        ours.sendall(bytes(32))
        with pytest.raises(RankError, match="refused a driver"):
            rank.result()


def test_slowness_has_an_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        receive_caller(ours, KEY, timeout_s=0.05)


def test_a_caller_that_is_lost_on_its_way_does_not_close_the_door(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's word when it hung up first, or when no descriptor is left for a while."""
    accept, lost = socket.socket.accept, threading.Event()

    def fail_once(listening: socket.socket) -> object:
        if lost.is_set():
            return accept(listening)
        lost.set()
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket.socket, "accept", fail_once)
    with door.connect():  # who waited in `accept` before is let in by the real one
        assert lost.wait(20)
    with door.connect() as connection:
        introduce(connection, KEY, Caller("rank", 0))
        assert door.somebody.wait(20)


def test_a_port_in_use_is_told(door: Door) -> None:
    with pytest.raises(ResourceStartError, match=f"127.0.0.1, port {door.listener.port}") as caught:
        Listener("127.0.0.1", KEY, lambda caller, channel: None, port=door.listener.port)
    assert "Address already in use" in (caught.value.got or "")


def test_it_listens_on_its_address_alone_until_it_is_closed(door: Door) -> None:
    def listening() -> list[str]:
        found = psutil.Process().net_connections(kind="inet")
        return [
            c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN and c.laddr.port == door.listener.port
        ]

    assert listening() == ["127.0.0.1"]
    door.listener.close()
    assert listening() == []


def _all(connection: socket.socket) -> bytes:
    data = b""
    try:
        while part := connection.recv(1000):
            data += part
    except ConnectionResetError:
        pass  # hung up on with bytes unread
    return data
