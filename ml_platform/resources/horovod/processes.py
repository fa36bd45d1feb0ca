"""Ranks as child processes of this one."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from typing import IO

from ml_platform.errors import ResourceStartError
from ml_platform.resources.horovod.gang import Gang, RankHandle, RankProcess
from ml_platform.resources.horovod.gang_job import GangJob
from ml_platform.resources.horovod.nursery import can_fork, fork_rank
from ml_platform.resources.horovod.plan import LaunchPlan, RankPlan
from ml_platform.worker.channel import KEY_BYTES, Channel
from ml_platform.worker.spawn import spawn_rank


def start_job(plan: LaunchPlan) -> GangJob:
    """Start the ranks of a plan; they import TensorFlow while the caller does something else."""
    return GangJob(plan, ProcessGang)


class ChildRank:
    """A rank that is a child of this process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._killed = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def exit_code(self, timeout_s: float) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=timeout_s)
        return None

    def flush_log(self) -> None:
        """The log file is the rank's own stdout."""

    def kill(self) -> None:
        if not self._killed:  # once: the number may be another's later
            self._killed = True
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


class ProcessGang(Gang):
    """Starts at once."""

    def __init__(self, plan: LaunchPlan) -> None:
        super().__init__(plan)
        self._launched = threading.Event()
        self._faults: list[Exception] = []
        # The kernel ends a rank with the *thread* that started it, so one lives as long as the gang.
        self._keeper = threading.Thread(target=self._keep, name="horovod-gang", daemon=True)
        self._keeper.start()
        self._launched.wait()
        if self._faults:
            self.close()
            raise ResourceStartError("ranks could not be started", got=self._faults[0]) from self._faults[0]

    def close(self) -> None:
        super().close()
        if threading.current_thread() is not self._keeper:
            self._keeper.join()

    def _keep(self) -> None:
        try:
            self._write_plan()
            for plan in self.plan.ranks:
                rank, channel = _start(plan)
                self.ranks.append(rank)
                self._attend(rank, channel)
        except Exception as error:  # noqa: BLE001  (whoever waits for the launch raises it)
            self._faults.append(error)
        self._launched.set()
        self._closing.wait()


def _start(plan: RankPlan) -> tuple[RankProcess, Channel]:
    key = secrets.token_bytes(KEY_BYTES)
    ours, theirs = socket.socketpair()
    try:
        with plan.log_file.open("ab") as log:
            rank = _rank(plan, theirs, key, log)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return RankProcess(plan, rank), Channel(ours, key, side="driver")


def _rank(plan: RankPlan, connection: socket.socket, key: bytes, log: IO[bytes]) -> RankHandle:
    if can_fork(plan):
        return fork_rank(plan, connection, key, output=log)
    return ChildRank(spawn_rank(plan.command, plan.environment, connection, key, output=log))
