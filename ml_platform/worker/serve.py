"""A rank's life: import once, say ready, run one job after the other, end when the driver hangs up."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Mapping
from typing import NoReturn

import psutil

from ml_platform.errors import RankError
from ml_platform.worker import messages
from ml_platform.worker.channel import Channel
from ml_platform.worker.job import run_job
from ml_platform.worker.lifeline import end_now
from ml_platform.worker.session import clear_session, prepare_session


def serve(channel: Channel, *, world_size: int, local_rank: int, beat_s: float, preload: bool) -> NoReturn:
    """Run jobs until the driver hangs up. Does not return."""
    start = time.monotonic()
    jobs: queue.SimpleQueue[messages.Job] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, jobs), name="control", daemon=True).start()
    threading.Thread(target=_beat, args=(channel, beat_s), name="heartbeat", daemon=True).start()
    if preload:
        prepare_session(world_size)
    channel.send(messages.Ready(os.getpid(), socket.gethostname(), time.monotonic() - start))
    reporter = ChannelReporter(channel)
    while True:
        job = jobs.get()
        print(f"--- job {job.number}: {job.name}", flush=True)
        os.environ.update(job.environment)
        run_job(job, channel, reporter, world_size=world_size, local_rank=local_rank)
        clear_session()


class ChannelReporter:
    """Reports of a rank in a process of its own: to the driver, and to the log file that is its stdout."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._channel.send(messages.Metrics(dict(values), step))

    def progress(self, message: str, done: float | None, total: float | None) -> None:
        self._channel.send(messages.Note(message, done, total))

    def log(self, message: str) -> None:
        print(message, flush=True)


def _listen(channel: Channel, jobs: queue.SimpleQueue[messages.Job]) -> None:
    try:
        while True:
            message = channel.receive()
            if isinstance(message, messages.Job):
                jobs.put(message)
            elif isinstance(message, messages.Ping):
                channel.send(messages.Pong())
    except (EOFError, OSError, RankError) as error:
        print(f"the driver is gone: {error}", flush=True)
    end_now()


def _beat(channel: Channel, beat_s: float) -> None:
    ticker, own = threading.Event(), psutil.Process()
    try:
        while not ticker.wait(beat_s):
            channel.send(messages.Beat(own.memory_info().rss >> 20))
    except OSError:
        end_now()
