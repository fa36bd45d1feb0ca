"""Ranks on Spark executors: one barrier stage, and in each of its tasks a child process that is a rank.

The tasks say where they are before any rank is started: only then is it decided which rank runs where, and
whether all of them would work there.
"""

from __future__ import annotations

import ipaddress
import queue
import secrets
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ml_platform.errors import PlatformError, RankError, ResourceStartError
from ml_platform.resources.horovod.barrier_stage import BarrierStage, busy_slots, slots
from ml_platform.resources.horovod.gang import Gang, RankProcess
from ml_platform.resources.horovod.gang_job import GangJob
from ml_platform.resources.horovod.listener import Listener
from ml_platform.resources.horovod.plan import LaunchPlan, Place, RankPlan, place_ranks
from ml_platform.resources.horovod.stage_checks import (
    check_arrivals,
    check_gpu_settings,
    check_settings,
    check_slots,
)
from ml_platform.resources.horovod.stage_task import run_task
from ml_platform.resources.spark import is_local, live_session
from ml_platform.worker import messages
from ml_platform.worker.channel import KEY_BYTES, Channel
from ml_platform.worker.handshake import Caller
from ml_platform.worker.keeper import DriverAddress

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SLOTS_TIMEOUT_S = 30.0
"""How long executors of a cluster may take to register."""
_LOOK_S = 0.2
_FLUSH_S = 2.0
_END_TIMEOUT_S = 10.0


def start_job(plan: LaunchPlan) -> GangJob:
    """Start the ranks of a plan on the live Spark application; does not wait for its slots.

    Raises:
        ResourceStartError: No Spark application is live, or its settings do not admit a gang.
    """
    return GangJob(plan, StageGang)


def _application(plan: LaunchPlan) -> SparkSession:
    try:
        session = live_session()
    except Exception as error:
        raise ResourceStartError(
            "ranks on Spark need a Spark application that lives", got=_first_line(error)
        ) from error
    if session is None or not hasattr(session, "sparkContext"):
        raise ResourceStartError(
            "ranks on Spark need a Spark application of this process",
            wanted="a live classic session",
            got="none" if session is None else "a session of Spark Connect",
            hint="open one with `ml_platform.resources.spark.open_session`; in a run the engine does",
        )
    settings = dict(session.sparkContext.getConf().getAll())
    check_settings(
        settings,
        network_is_loopback=ipaddress.ip_address(plan.address).is_loopback,
        unencrypted=plan.unencrypted,
    )
    if plan.gpu:
        check_gpu_settings(settings, settings["spark.master"])
    return session


class StageRank:
    """A rank whose keeper is a Spark task."""

    def __init__(self, plan: RankPlan, keeper: Channel) -> None:
        self.pid = 0
        self._keeper = keeper
        self._code: int | None = None
        self._gone = threading.Event()
        self._flushed = threading.Event()
        self._log = plan.log_file.open("ab", buffering=0)
        threading.Thread(target=self._listen, name=f"keeper-{plan.rank}", daemon=True).start()

    def start(self, plan: RankPlan) -> None:
        self._keeper.send(messages.Start(plan.rank, plan.command, plan.environment))

    def alive(self) -> bool:
        return not self._gone.is_set()

    def exit_code(self, timeout_s: float) -> int | None:
        self._gone.wait(timeout_s)
        return self._code

    def flush_log(self) -> None:
        self._flushed.clear()
        if self.alive():
            with suppress(OSError):  # gone meanwhile, with all that it said
                self._keeper.send(messages.Flush())
                self._flushed.wait(_FLUSH_S)

    def kill(self) -> None:
        self._keeper.hang_up()

    def close(self) -> None:
        self._keeper.close()

    def _listen(self) -> None:
        try:
            with suppress(EOFError, RankError), self._log:
                while self._code is None:
                    self._take(self._keeper.receive())
        finally:
            self._gone.set()
            self._flushed.set()

    def _take(self, message: messages.Message) -> None:
        if isinstance(message, messages.Started):
            self.pid = message.pid
        elif isinstance(message, messages.Printed):
            # A disk that is full here: a rank whose output nobody takes would wait for good.
            with suppress(OSError):
                self._log.write(message.text)
        elif isinstance(message, messages.Flushed):
            self._flushed.set()
        elif isinstance(message, messages.Exited):
            self._code = message.code


class StageGang(Gang):
    """Asks for its slots at once."""

    def __init__(self, plan: LaunchPlan) -> None:
        super().__init__(plan)
        self._session = _application(plan)
        self._key = secrets.token_bytes(KEY_BYTES)
        self._arrivals: dict[int, messages.Arrived] = {}
        self._keepers: dict[int, Channel] = {}
        self._arriving: queue.SimpleQueue[tuple[int, messages.Arrived, Channel]] = queue.SimpleQueue()
        self._handles: list[StageRank] = []
        self._stage: BarrierStage | None = None
        self._listener = Listener(plan.address, self._key, self._on_caller, port=plan.port)
        self._launcher = threading.Thread(target=self._launch, name="horovod-launch", daemon=True)
        self._launcher.start()

    @property
    def why_waiting(self) -> str:
        if self._handles:
            return ""
        if self._stage is None:
            return f"Spark has {slots(self._session)} slots"
        held_up = f"; {held}" if (held := self.held_up) else ""
        return f"{len(self._arrivals)} of {self.plan.world_size} tasks have a slot{held_up}"

    @property
    def held_up(self) -> str:
        if self._handles or self._stage is None:
            return ""
        busy = busy_slots(self._session, besides=self._stage.group)
        if not busy:
            return ""
        holders = ", ".join(f"{count} by {name}" for name, count in busy.items())
        return f"of Spark's {slots(self._session)} slots {sum(busy.values())} are held: {holders}"

    def kill(self) -> None:
        super().kill()
        if not self._handles:
            for keeper in list(self._keepers.values()):
                keeper.close()
            if self._stage is not None:
                self._stage.cancel()

    def close(self) -> None:
        """End all ranks, and give their slots back."""
        super().close()
        self._listener.close()
        self._launcher.join()
        if self._stage is not None and not self._stage.join(_END_TIMEOUT_S):
            self._stage.cancel()
            self._stage.join(_END_TIMEOUT_S)
        for handle in self._handles:
            handle.close()

    def _on_caller(self, caller: Caller, channel: Channel) -> None:
        if caller.role == "rank":
            rank = next((rank for rank in self.ranks if rank.plan.rank == caller.number), None)
            if rank is not None and rank.channel is None:
                self._attend(rank, channel)
                return
        elif not self._handles and not self._closing.is_set():
            with suppress(EOFError, RankError):
                message = channel.receive()
                if isinstance(message, messages.Arrived):
                    self._arriving.put((caller.number, message, channel))
                    return
        channel.close()  # of a stage that Spark runs again: nobody waits for it

    def _launch(self) -> None:
        try:
            self._wait_for_slots()
            if self._closing.is_set():
                return
            self._stage = self._started_stage()
            self._gather()
            self._start_ranks()
        except (EOFError, OSError) as error:
            self.fault = ResourceStartError("a task was lost before its rank was started", got=error)
        except PlatformError as error:
            self.fault = error
        except Exception as error:  # noqa: BLE001  (Spark's own: its JVM is gone, say)
            self.fault = ResourceStartError(
                "Spark did not start the tasks of the ranks", got=_first_line(error)
            )
        if self.fault is not None or self._closing.is_set():
            self.kill()

    def _wait_for_slots(self) -> None:
        """Executors of a cluster register one after the other; a local master has its slots at once."""
        master = str(self._session.sparkContext.master)
        timeout_s = 0.0 if is_local(master) else min(_SLOTS_TIMEOUT_S, self.plan.start_timeout_s)
        deadline = time.monotonic() + timeout_s
        while (there := slots(self._session)) < self.plan.world_size:
            if time.monotonic() >= deadline or self._closing.wait(_LOOK_S):
                check_slots(self.plan.world_size, there, master)

    def _started_stage(self) -> BarrierStage:
        driver = DriverAddress(self.plan.address, self._listener.port, self._key)
        function = partial(run_task, driver, self.plan.network)
        group = f"horovod-{secrets.token_hex(4)}"
        return BarrierStage(
            self._session, lambda batches: function(batches), self.plan.world_size, group=group
        )

    def _gather(self) -> None:
        """Wait until every task has said where it is. How long is up to whoever waits for the ranks."""
        while len(self._arrivals) < self.plan.world_size:
            if self._closing.is_set():
                raise EOFError("the gang was closed")
            with suppress(queue.Empty):
                number, arrived, channel = self._arriving.get(timeout=_LOOK_S)
                self._arrivals[number], self._keepers[number] = arrived, channel
                continue
            if self._stage is not None and self._stage.ended.is_set():
                raise ResourceStartError(
                    "the barrier stage of the ranks ended before they were started",
                    got=str(self._stage.error).strip().splitlines()[-1] if self._stage.error else "no error",
                ) from self._stage.error

    def _start_ranks(self) -> None:
        order = self._order()
        arrivals = [self._arrivals[number] for number in order]
        keepers = [self._keepers[number] for number in order]
        check_arrivals(self.plan, arrivals)
        check_reach(arrivals, keepers)
        self.plan = place_ranks(self.plan, [_place(arrived) for arrived in arrivals])
        self._write_plan()
        handles = [StageRank(plan, keeper) for plan, keeper in zip(self.plan.ranks, keepers, strict=True)]
        self.ranks = [
            RankProcess(plan, handle) for plan, handle in zip(self.plan.ranks, handles, strict=True)
        ]
        self._handles = handles
        for handle, plan in zip(handles, self.plan.ranks, strict=True):
            handle.start(plan)

    def _order(self) -> list[int]:
        """Partitions by rank: those of one machine are neighbours, machines by their first partition."""
        first: dict[tuple[str, str], int] = {}
        for number, arrived in sorted(self._arrivals.items()):
            first.setdefault((arrived.host, arrived.address), number)
        return sorted(
            self._arrivals,
            key=lambda number: (first[self._arrivals[number].host, self._arrivals[number].address], number),
        )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def _place(arrived: messages.Arrived) -> Place:
    device = ",".join(arrived.devices) or None
    return Place(host=arrived.host, address=arrived.address, interface=arrived.interface, device=device)


def check_reach(arrivals: list[messages.Arrived], keepers: list[Channel]) -> None:
    """Have every machine connect to that of rank 0: Gloo would try until its timeout, and name nobody."""
    keepers[0].send(messages.Listen())
    door = keepers[0].receive()
    assert isinstance(door, messages.Listening)
    target = messages.Reach(arrivals[0].address, door.port)
    for keeper in keepers[1:]:
        keeper.send(target)
    for arrived, keeper in zip(arrivals[1:], keepers[1:], strict=True):
        answer = keeper.receive()
        if isinstance(answer, messages.Reached) and answer.error:
            raise ResourceStartError(
                f"{arrived.host} cannot reach rank 0 on {arrivals[0].host}; no rank was started",
                wanted=f"a connection from {arrived.address} to {target.address}, port {target.port}",
                got=answer.error,
                hint="open the ports between executors, or name another `horovod.network` in the placement",
            )
