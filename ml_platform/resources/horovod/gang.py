"""A gang: the processes of all ranks on this machine, from their start to their end."""

from __future__ import annotations

import os
import queue
import secrets
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from ml_platform.errors import RankError, ResourceStartError
from ml_platform.resources.horovod.plan import LaunchPlan, RankPlan
from ml_platform.worker import messages
from ml_platform.worker.channel import KEY_BYTES, Channel

_END_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Ended:
    """A rank hung up: it ended, or its message could not be trusted."""

    reason: str


class RankProcess:
    """One rank: its process, its connection, its last sign of life."""

    def __init__(self, plan: RankPlan, process: subprocess.Popen[bytes], channel: Channel) -> None:
        self.plan = plan
        self.process = process
        self.channel = channel
        self.last_seen = time.monotonic()
        self.ready = False
        self.log_start = 0
        self._killed = False

    def exit_code(self) -> int | None:
        """How it ended, None if it lives; waits a moment for a process that has just hung up."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout=1)
        return None

    def send(self, message: messages.Message) -> None:
        """Send without waiting: a stopped rank would let a large message wait for good."""
        threading.Thread(target=self._send, args=(message,), daemon=True).start()

    def _send(self, message: messages.Message) -> None:
        with suppress(OSError):  # the rank is gone, which its listener notices
            self.channel.send(message)

    def kill(self) -> None:
        """End it and whatever it started, stopped or not. Once: the number may be another's later."""
        if not self._killed:
            self._killed = True
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def mark_log(self) -> None:
        """Later quotes of the log begin here."""
        self.log_start = self.plan.log_file.stat().st_size


Event = tuple[RankProcess, messages.Message | Ended]


class Gang:
    """All ranks of a launch. Starts at once; events come through `next_event`."""

    def __init__(self, plan: LaunchPlan) -> None:
        self.plan = plan
        self.ranks: list[RankProcess] = []
        self.started_at = time.monotonic()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._launched = threading.Event()
        self._faults: list[OSError] = []
        # The kernel ends a rank with the *thread* that started it, so one lives as long as the gang.
        self._keeper = threading.Thread(target=self._keep, name="horovod-gang", daemon=True)
        self._keeper.start()
        self._launched.wait()
        if self._faults:
            self.close()
            raise ResourceStartError("ranks could not be started", got=self._faults[0]) from self._faults[0]

    @property
    def usable(self) -> bool:
        """Whether every rank lives."""
        return not self._closing.is_set() and all(rank.process.poll() is None for rank in self.ranks)

    def next_event(self, timeout_s: float) -> Event | None:
        """What a rank said, or None when it is time to look around."""
        try:
            return self._events.get(timeout=max(timeout_s, 0))
        except queue.Empty:
            return None

    def forgive(self) -> None:
        """Count silence from now on: it was the driver that did not listen."""
        for rank in self.ranks:
            rank.last_seen = time.monotonic()

    def silent(self) -> list[RankProcess]:
        """Ranks that gave no sign of life for too long."""
        oldest = time.monotonic() - self.plan.heartbeat_timeout_s
        return [rank for rank in self.ranks if rank.last_seen < oldest]

    def kill(self) -> None:
        """End all ranks without waiting."""
        for rank in self.ranks:
            rank.kill()

    def close(self) -> None:
        """End all ranks. Twice is harmless."""
        self._closing.set()
        self.kill()
        for rank in self.ranks:
            with suppress(subprocess.TimeoutExpired):
                rank.process.wait(timeout=_END_TIMEOUT_S)
            rank.channel.close()
        if threading.current_thread() is not self._keeper:
            self._keeper.join()

    def _keep(self) -> None:
        try:
            for plan in self.plan.ranks:
                self.ranks.append(_start(plan))
        except OSError as error:
            self._faults.append(error)
        for rank in self.ranks:
            name = f"rank-{rank.plan.rank}"
            threading.Thread(target=self._listen, args=(rank,), name=name, daemon=True).start()
        self._launched.set()
        self._closing.wait()

    def _listen(self, rank: RankProcess) -> None:
        try:
            while True:
                message = rank.channel.receive()
                rank.last_seen = time.monotonic()
                if isinstance(message, messages.Ready):
                    rank.ready = True
                if not isinstance(message, messages.Beat):
                    self._events.put((rank, message))
        except (EOFError, RankError) as error:
            self._events.put((rank, Ended(str(error))))


def _start(plan: RankPlan) -> RankProcess:
    key = secrets.token_bytes(KEY_BYTES)
    ours, theirs = socket.socketpair()
    key_out, key_in = os.pipe()
    try:
        os.write(key_in, key)
        descriptors = (theirs.fileno(), key_out)
        process = _spawn(plan, descriptors)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(key_in)
        os.close(key_out)
    return RankProcess(plan, process, Channel(ours, key, side="driver"))


def _spawn(plan: RankPlan, descriptors: tuple[int, int]) -> subprocess.Popen[bytes]:
    plan.log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    control, key = descriptors
    with plan.log_file.open("ab") as log:
        return subprocess.Popen(
            [*plan.command, "--control-fd", str(control), "--key-fd", str(key)],
            env={**os.environ, **plan.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=descriptors,
            process_group=0,
        )
