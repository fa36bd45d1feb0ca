"""Signed messages: a stranger's bytes are never unpickled."""

from __future__ import annotations

import os
import pickle
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_platform.errors import RankError
from ml_platform.worker import messages
from ml_platform.worker.channel import Channel
from ml_platform.worker.messages import Beat, Job, Message, Note

KEY = b"k" * 32


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


class Trap:
    """Unpickling it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def test_messages_cross_both_ways(ends: tuple[socket.socket, socket.socket]) -> None:
    driver, rank = Channel(ends[0], KEY, side="driver"), Channel(ends[1], KEY, side="rank")
    for number in range(3):
        driver.send(Job(number, "f", b"x" * 1000, {}))
        assert rank.receive() == Job(number, "f", b"x" * 1000, {})
        rank.send(Note("epoch 1/2", number, 2))
        assert driver.receive() == Note("epoch 1/2", number, 2)


def test_stranger_is_refused_before_anything_is_unpickled(
    ends: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    """Without the key no payload is opened, whatever it would do."""
    payload = pickle.dumps(Trap(tmp_path / "sprung"))
    ends[0].sendall(struct.pack(">Q", len(payload)) + b"s" * 32 + payload)
    with pytest.raises(RankError, match="not signed with this job's key"):
        Channel(ends[1], KEY, side="rank").receive()
    assert not (tmp_path / "sprung").exists()
    pickle.loads(payload)
    assert (tmp_path / "sprung").exists(), "the trap works"


def test_another_key_is_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    Channel(ends[0], b"o" * 32, side="driver").send(Beat())
    with pytest.raises(RankError, match="not signed"):
        Channel(ends[1], KEY, side="rank").receive()


def test_replayed_and_reflected_frames_are_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    """A frame counts once, in its place, in its direction."""
    a, b = socket.socketpair()
    with a, b:
        Channel(a, KEY, side="driver").send(Beat())
        frame = b.recv(4096)
    receiver = Channel(ends[1], KEY, side="rank")
    ends[0].sendall(frame + frame)
    assert receiver.receive() == Beat()
    with pytest.raises(RankError, match="not signed"):
        receiver.receive()
    ends[1].sendall(frame)
    with pytest.raises(RankError, match="not signed"):
        Channel(ends[0], KEY, side="driver").receive()


def test_too_large_a_frame_is_refused_before_it_is_read(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].sendall(struct.pack(">Q", 1 << 40))
    with pytest.raises(RankError, match="too large"):
        Channel(ends[1], KEY, side="rank").receive()
    with pytest.raises(RankError, match="too large to send"):
        Channel(ends[0], KEY, side="driver", limit_bytes=10).send(Note("more than ten bytes"))


def test_a_message_cut_short_is_the_end(tmp_path: Path) -> None:
    """Wherever it was cut: in its length, its signature or its payload. Nothing of it is opened."""
    frame = _frame(Note("epoch 1/2"))
    for cut in (1, 8, 20, 40, len(frame) - 1):
        left, right = socket.socketpair()
        with left, right:
            left.sendall(frame[:cut])
            left.close()
            with pytest.raises(EOFError, match="hung up"):
                Channel(right, KEY, side="rank").receive()


def _frame(message: Message) -> bytes:
    left, right = socket.socketpair()
    with left, right:
        Channel(left, KEY, side="driver").send(message)
        return right.recv(4096)


def test_what_cannot_be_opened_here_is_told(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions that differ between the two ends, say. Whoever listens must not end without a word."""
    with monkeypatch.context() as patch:
        patch.setattr(messages, "Later", _Later, raising=False)
        Channel(ends[0], KEY, side="driver").send(_Later())  # type: ignore[arg-type]
    with pytest.raises(RankError, match="a message cannot be opened here") as caught:
        Channel(ends[1], KEY, side="rank").receive()
    assert "Later" in (caught.value.got or "")


class _Later:
    """A message that only a newer platform has."""


_Later.__module__, _Later.__qualname__ = messages.__name__, "Later"


def test_hanging_up_is_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    Channel(ends[0], KEY, side="driver").close()
    with pytest.raises(EOFError):
        Channel(ends[1], KEY, side="rank").receive()
