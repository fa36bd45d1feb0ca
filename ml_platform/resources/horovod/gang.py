"""A gang: all ranks of a launch as the driver sees them, from their start to their end.

A backend says how ranks start, and hands over one `RankHandle` per rank.
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from ml_platform.errors import PlatformError, RankError
from ml_platform.resources.horovod.plan import LaunchPlan, RankPlan
from ml_platform.worker import messages
from ml_platform.worker.channel import Channel

_END_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Ended:
    """A rank hung up: it ended, or its message could not be trusted."""

    reason: str


class RankHandle(Protocol):
    """One rank's process, wherever it is."""

    @property
    def pid(self) -> int:
        """Its number on its machine; 0 before it was started."""

    def alive(self) -> bool: ...

    def exit_code(self, timeout_s: float) -> int | None:
        """How it ended. None if it lives when the time is over, or if nobody can say any more."""

    def flush_log(self) -> None:
        """Have everything in the log file that the rank has printed so far."""

    def kill(self) -> None:
        """End it and whatever it started, stopped or not. Twice is harmless."""


class RankProcess:
    """One rank: its process, its connection, its last sign of life."""

    def __init__(self, plan: RankPlan, handle: RankHandle, channel: Channel | None = None) -> None:
        self.plan = plan
        self.handle = handle
        self.channel = channel
        self.forgiven_at = time.monotonic()
        self.ready = False
        self.memory_mib = 0
        self.log_start = 0

    @property
    def last_seen(self) -> float:
        """When it gave a sign of life: a byte is one, of a large result on a slow network too."""
        heard_at = self.channel.heard_at if self.channel is not None else 0.0
        return max(heard_at, self.forgiven_at)

    def send(self, message: messages.Message) -> None:
        """Send without waiting: a stopped rank would let a large message wait for good."""
        threading.Thread(target=self._send, args=(message,), daemon=True).start()

    def _send(self, message: messages.Message) -> None:
        with suppress(OSError):  # the rank is gone, which its listener notices
            if self.channel is not None:
                self.channel.send(message)

    def mark_log(self) -> None:
        """Later quotes of the log begin here."""
        self.handle.flush_log()
        self.log_start = self.plan.log_file.stat().st_size


Event = tuple[RankProcess, messages.Message | Ended]


class Gang:
    """The common half of every backend's gang. Events come through `next_event`."""

    def __init__(self, plan: LaunchPlan) -> None:
        self.plan = plan
        self.ranks: list[RankProcess] = []
        self.fault: PlatformError | None = None
        self.started_at = time.monotonic()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._closing = threading.Event()

    def is_usable(self) -> bool:
        """Whether every rank that was started lives, and every one that is ready answers now.

        A rank that was just killed may look alive for a while, and an idle one may have been stopped.
        """
        return (
            not self._closing.is_set() and all(rank.handle.alive() for rank in self.ranks) and self._answers()
        )

    @property
    def why_waiting(self) -> str:
        """What a launch that is not finished waits for, besides its ranks."""
        return ""

    @property
    def held_up(self) -> str:
        """Who has what the launch needs; empty where nobody has."""
        return ""

    def missing(self) -> list[RankPlan]:
        """Ranks that are not ready yet."""
        ready = {rank.plan.rank for rank in self.ranks if rank.ready}
        return [plan for plan in self.plan.ranks if plan.rank not in ready]

    def stillborn(self) -> list[RankPlan]:
        """Ranks that ended before they were ready."""
        return [rank.plan for rank in self.ranks if not rank.ready and not rank.handle.alive()]

    def check(self) -> None:
        """Raise what made the launch fail."""
        if self.fault is not None:
            raise self.fault

    def unfit(self) -> str | None:
        """Why these ranks should not get another job, although they live. None: they may."""
        age_s = time.monotonic() - self.started_at
        if age_s > self.plan.max_age_s:
            return f"they are {age_s:,.0f} s old, more than {self.plan.max_age_s:,.0f} s"
        for rank in self.ranks:
            if rank.memory_mib > self.plan.max_memory_mib:
                held, most = rank.memory_mib, self.plan.max_memory_mib
                return f"rank {rank.plan.rank} holds {held:,} MiB, more than {most:,} MiB"
        return None

    def next_event(self, timeout_s: float) -> Event | None:
        """What a rank said, or None when it is time to look around."""
        try:
            return self._events.get(timeout=max(timeout_s, 0))
        except queue.Empty:
            return None

    def forgive(self) -> None:
        """Count silence from now on: it was the driver that did not listen."""
        for rank in self.ranks:
            rank.forgiven_at = time.monotonic()

    def silent(self) -> list[RankProcess]:
        """Ranks that gave no sign of life for too long."""
        oldest = time.monotonic() - self.plan.heartbeat_timeout_s
        return [rank for rank in self.ranks if rank.last_seen < oldest]

    def _answers(self) -> bool:
        unheard = [rank for rank in self.ranks if rank.ready]
        for rank in unheard:
            rank.send(messages.Ping())
        deadline = time.monotonic() + self.plan.heartbeat_timeout_s
        while unheard:
            event = self.next_event(deadline - time.monotonic())
            if event is None or isinstance(event[1], Ended):
                return False
            if isinstance(event[1], messages.Pong):
                unheard.remove(event[0])
        return True

    def kill(self) -> None:
        """End all ranks without waiting."""
        for rank in self.ranks:
            rank.handle.kill()

    def close(self) -> None:
        """End all ranks. Twice is harmless."""
        self._closing.set()
        self.kill()
        for rank in self.ranks:
            rank.handle.exit_code(_END_TIMEOUT_S)
            if rank.channel is not None:
                rank.channel.close()

    def _write_plan(self) -> None:
        """Leave beside the logs what is about to be started."""
        folder = self.plan.ranks[0].log_file.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "launch.txt").write_text(f"{self.plan}\n")

    def _attend(self, rank: RankProcess, channel: Channel) -> None:
        """Listen to a rank until it hangs up, in a thread of its own."""
        rank.channel = channel
        name = f"rank-{rank.plan.rank}"
        threading.Thread(target=self._listen, args=(rank, channel), name=name, daemon=True).start()

    def _listen(self, rank: RankProcess, channel: Channel) -> None:
        try:
            while True:
                message = channel.receive()
                if isinstance(message, messages.Ready):
                    rank.ready = True
                if isinstance(message, messages.Beat):
                    rank.memory_mib = message.memory_mib
                else:
                    self._events.put((rank, message))
        except (EOFError, RankError) as error:
            self._events.put((rank, Ended(str(error))))
