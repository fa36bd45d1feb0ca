"""The keeper of a rank: what a Spark task does. It starts the rank as a child, and answers for it.

The rank is never the task's own process: Horovod's state and TensorFlow's memory would survive in a worker
that Spark uses again. When the driver hangs up, the keeper ends the rank; when the keeper dies, the kernel
does.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass, field

from ml_platform.errors import RankError
from ml_platform.worker import messages
from ml_platform.worker.channel import Channel
from ml_platform.worker.handshake import TIMEOUT_S, Caller, introduce
from ml_platform.worker.network import keep_alive
from ml_platform.worker.spawn import import_path, spawn_rank

REACH_TIMEOUT_S = 5.0
_READ_BYTES = 64 << 10
_DRAIN_S = 2.0


@dataclass(frozen=True)
class DriverAddress:
    """Where the driver listens, and the key of the job. Travels inside the Spark job; is never printed."""

    address: str
    port: int
    key: bytes = field(repr=False)


def keep_rank(driver: DriverAddress, partition: int, arrived: messages.Arrived) -> None:
    """Report to the driver, do what it says, and return when the rank has ended.

    Returns at once where the driver has no use for this task, for instance in a stage that is run again.

    Raises:
        OSError: The driver cannot be reached.
    """
    channel = connected(driver, Caller("keeper", partition))
    try:
        channel.send(arrived)
        start = _wait_for_start(channel)
        if start is not None:
            _Keeper(channel, driver, start).run()
    except (EOFError, OSError, RankError) as error:
        print(f"the driver is gone: {error}", file=sys.stderr, flush=True)
    except Exception:  # noqa: BLE001  (Spark would run the stage again, and nobody would know why)
        with suppress(OSError):
            channel.send(messages.Printed(traceback.format_exc().encode()))
    finally:
        channel.close()


def connected(driver: DriverAddress, caller: Caller) -> Channel:
    """A connection to the driver, once both ends have proved who they are.

    Raises:
        OSError: The driver cannot be reached.
        RankError: It does not know the key.
    """
    connection, key = _introduced(driver, caller)
    return Channel(connection, key, side="rank")


def _introduced(driver: DriverAddress, caller: Caller) -> tuple[socket.socket, bytes]:
    connection = socket.create_connection((driver.address, driver.port), timeout=TIMEOUT_S)
    try:
        keep_alive(connection)
        return connection, introduce(connection, driver.key, caller)
    except BaseException:
        connection.close()
        raise


def _wait_for_start(channel: Channel) -> messages.Start | None:
    door: socket.socket | None = None
    try:
        while True:
            message = channel.receive()
            if isinstance(message, messages.Listen):
                door = socket.create_server((channel.address, 0))
                channel.send(messages.Listening(door.getsockname()[1]))
            elif isinstance(message, messages.Reach):
                channel.send(messages.Reached(reached(message)))
            elif isinstance(message, messages.Start):
                return message
    except EOFError:
        return None
    finally:
        if door is not None:
            door.close()


def reached(message: messages.Reach) -> str:
    """Why a place could not be reached from here; empty if it could."""
    try:
        socket.create_connection((message.address, message.port), timeout=REACH_TIMEOUT_S).close()
    except OSError as error:
        return str(error)
    return ""


class _Keeper:
    """One rank, from its start to its end. `run` belongs to the task's main thread: the rank dies with it."""

    def __init__(self, channel: Channel, driver: DriverAddress, start: messages.Start) -> None:
        self._channel = channel
        output, rank_output = os.pipe()
        try:
            self._process = _spawned(driver, start, rank_output)
        except BaseException:
            os.close(output)  # Spark keeps this process for more
            raise
        finally:
            os.close(rank_output)
        self._output = os.fdopen(output, "rb", buffering=0)
        self._flush_out, self._flush_in = socket.socketpair()
        self._drained = threading.Event()

    def run(self) -> None:
        for target in (self._pump, self._listen):
            threading.Thread(target=target, daemon=True).start()
        self._channel.send(messages.Started(self._process.pid))
        # The number stays the rank's until it is collected, so that its group can still be ended.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        self._kill()
        code = self._process.wait()
        self._drained.wait(_DRAIN_S)
        self._channel.send(messages.Exited(code))

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _listen(self) -> None:
        with self._flush_in, suppress(EOFError, RankError):
            while True:
                if isinstance(self._channel.receive(), messages.Flush):
                    with suppress(OSError):  # the rank has ended, and all that it said is sent
                        self._flush_in.send(b".")
        if self._process.returncode is None:
            self._kill()

    def _pump(self) -> None:
        """Send what the rank prints; a flush is answered when nothing is left to be read."""
        poll = select.poll()
        for end in (self._output, self._flush_out):
            poll.register(end.fileno(), select.POLLIN)
        with self._output, self._flush_out, suppress(OSError):  # the driver is gone
            while True:
                ready = {descriptor for descriptor, _ in poll.poll()}
                if self._output.fileno() in ready:
                    text = self._output.read(_READ_BYTES)
                    if not text:
                        break
                    self._channel.send(messages.Printed(text))
                else:
                    self._flush_out.recv(1)
                    self._channel.send(messages.Flushed())
        self._drained.set()


def _spawned(driver: DriverAddress, start: messages.Start, output: int) -> subprocess.Popen[bytes]:
    connection, key = _introduced(driver, Caller("rank", start.rank))
    command = [sys.executable, *start.command[1:]]
    environment = {**start.environment, "PYTHONPATH": os.pathsep.join(import_path())}
    try:
        return spawn_rank(command, environment, connection, key, output=output)
    finally:
        connection.close()
