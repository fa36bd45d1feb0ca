"""The process that forks ranks: what befalls one rank is nothing to the others."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from ml_platform.worker import nursery


def test_a_rank_that_cannot_be_forked_is_told_of_and_the_others_live_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine has no room for another process: its driver hears an end, and its log says why."""

    def no_room() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_room)
    driver, rank = socket.socketpair()
    key, _key_in = os.pipe()
    news, news_in = os.pipe()
    log = os.open(tmp_path / "rank-0.log", os.O_WRONLY | os.O_CREAT)
    orders, _ours = socket.socketpair()
    with driver, orders, _ours:
        order = nursery.Order([], {}, rank.detach(), key, log, news_in)
        assert nursery.Nursery(orders).fork(order) is None
        assert driver.recv(1) == b""
    assert os.read(news, 1) == b""
    os.close(news)
    os.close(_key_in)
    assert "could not be forked: [Errno 11] Resource temporarily" in (tmp_path / "rank-0.log").read_text()
