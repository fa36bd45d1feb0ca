"""What the keeper of a rank, which is a Spark task, tells the driver, and that it leaves nothing behind."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import psutil
import pytest

from ml_platform.errors import RankError
from ml_platform.resources.horovod.listener import Listener
from ml_platform.worker import messages
from ml_platform.worker.channel import Channel
from ml_platform.worker.handshake import Caller
from ml_platform.worker.keeper import DriverAddress, keep_rank

KEY = b"k" * 32
HERE = messages.Arrived("here", "127.0.0.1", "lo", {}, "", 0)


class Driver:
    """The driver's half: who called, in order. A keeper is told what to do by the test."""

    def __init__(self) -> None:
        self.callers: queue.SimpleQueue[tuple[Caller, Channel]] = queue.SimpleQueue()
        self.listener = Listener(
            "127.0.0.1", KEY, lambda caller, channel: self.callers.put((caller, channel))
        )
        self._pool = ThreadPoolExecutor(1)

    def keeper(self) -> tuple[Channel, Future[None]]:
        """A keeper that has arrived and waits; its future ends when its task would."""
        address = DriverAddress("127.0.0.1", self.listener.port, KEY)
        task = self._pool.submit(keep_rank, address, 0, HERE)
        caller, channel = self.callers.get(timeout=20)
        assert caller == Caller("keeper", 0)
        assert channel.receive() == HERE
        return channel, task

    def close(self) -> None:
        self._pool.shutdown()
        self.listener.close()
        while not self.callers.empty():
            self.callers.get()[1].close()


@pytest.fixture
def driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()


def start(*command: str, **environment: str) -> messages.Start:
    return messages.Start(0, (sys.executable, "-c", *command), environment)


def words(channel: Channel) -> list[messages.Message]:
    """All that a keeper says until it hangs up."""
    heard: list[messages.Message] = []
    try:
        while True:
            heard.append(channel.receive())
    except (EOFError, RankError):
        return heard


def test_a_rank_is_told_of_from_its_start_to_its_end(driver: Driver) -> None:
    channel, task = driver.keeper()
    channel.send(start("import sys; print('hello'); sys.exit(7)"))
    started, *printed, exited = words(channel)
    assert isinstance(started, messages.Started)
    assert b"".join(said.text for said in printed if isinstance(said, messages.Printed)) == b"hello\n"
    assert exited == messages.Exited(7)
    assert task.result(20) is None
    channel.close()


def test_what_keeps_a_rank_from_starting_is_told(driver: Driver) -> None:
    """And the task ends well: Spark would run the stage again."""
    channel, task = driver.keeper()
    channel.send(start("pass", A="a\0b"))
    (said,) = words(channel)
    assert isinstance(said, messages.Printed)
    assert b"ValueError: embedded null byte" in said.text
    assert task.result(20) is None
    channel.close()


def test_a_driver_that_hangs_up_ends_the_rank(driver: Driver) -> None:
    channel, task = driver.keeper()
    channel.send(start("import signal; signal.pause()"))
    assert isinstance(channel.receive(), messages.Started)
    channel.close()
    assert task.result(20) is None


def test_a_worker_that_keeps_ranks_again_and_again_holds_no_more(driver: Driver) -> None:
    """Spark uses its Python workers for later stages."""

    def keep() -> int:
        channel, task = driver.keeper()
        channel.send(start("pass"))
        words(channel)
        task.result(20)
        driver.callers.get(timeout=20)[1].close()  # of the rank
        channel.close()
        return psutil.Process().num_fds()

    before = keep()
    counts = [keep() for _ in range(3)]
    deadline, pause = time.monotonic() + 20, threading.Event()
    while counts[-1] > before:
        assert time.monotonic() < deadline, counts
        pause.wait(0.02)
        counts.append(psutil.Process().num_fds())
