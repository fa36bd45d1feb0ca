"""A gang as its driver sees it: who gives signs of life."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from ml_platform.errors import RankLostError
from ml_platform.resources.horovod import plan_launch
from ml_platform.resources.horovod.gang import Gang, RankProcess
from ml_platform.resources.horovod.watch import TICK_S, Watch
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import HorovodSpec
from ml_platform.worker import messages
from ml_platform.worker.channel import Channel

KEY = b"k" * 32


class Handle:
    """A process that is somewhere."""

    pid = 1

    def alive(self) -> bool:
        return True

    def exit_code(self, timeout_s: float) -> int | None:
        return None

    def flush_log(self) -> None: ...

    def kill(self) -> None: ...


def test_a_rank_that_sends_a_large_message_slowly_is_not_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeats wait behind the message; each byte of that is a sign of life."""
    now, pause = [1000.0], threading.Event()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    plan = plan_launch(HorovodSpec(ranks=1, backend="spark"), HorovodPlacement(), tmp_path)
    gang, rank = Gang(plan), RankProcess(plan.ranks[0], Handle())
    gang.ranks.append(rank)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours, KEY, side="driver")
        gang._attend(rank, channel)
        frame = _frame(messages.Result(1, b"x" * 100))
        now[0] += plan.heartbeat_timeout_s + 1
        assert gang.silent() == [rank]
        theirs.sendall(frame[:60])
        while channel.heard_at < now[0]:
            pause.wait(0.01)
        assert gang.silent() == []
        assert gang.next_event(0) is None
        now[0] += plan.heartbeat_timeout_s + 1
        assert gang.silent() == [rank]
        theirs.sendall(frame[60:])
        assert gang.next_event(20) == (rank, messages.Result(1, b"x" * 100))
        channel.close()


def test_a_silent_rank_is_found_one_look_after_its_time_at_the_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that looks alone move: not before `heartbeat_timeout_s`, nor later than one look more."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    spec = HorovodSpec(ranks=1, backend="spark", heartbeat_timeout_s=7)
    gang = Gang(plan_launch(spec, HorovodPlacement(), tmp_path))
    gang.ranks.append(RankProcess(gang.plan.ranks[0], Handle()))

    def wait(timeout_s: float) -> None:
        now[0] += timeout_s

    monkeypatch.setattr(gang, "next_event", wait)
    watch = Watch(gang, messages.Job(1, "fit", b"", {}), lambda rank, said: None, lambda: None)
    with pytest.raises(RankLostError, match=r"rank 0 of 1 on .* fell silent in fit") as caught:
        watch.results()
    assert caught.value.wanted == "a sign of life within 7 s"
    assert 1007 < now[0] <= 1007 + TICK_S


def _frame(message: messages.Message) -> bytes:
    left, right = socket.socketpair()
    with left, right:
        Channel(left, KEY, side="rank").send(message)
        return right.recv(4096)
