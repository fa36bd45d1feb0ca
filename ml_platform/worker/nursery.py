"""The nursery: a process that imports once what every rank needs, and forks a rank when it is asked to.

`python -m ml_platform.worker.nursery`, started by `ml_platform.resources.horovod.nursery`. Importing
TensorFlow takes a processor 5 s, forking a process that did some hundredths. The nursery itself runs nothing
of TensorFlow, so that no thread of it and no device is there when it forks; and it opens no message, so that
it needs no key. The kernel ends it with the thread that started it, and its ranks with it.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import sys
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from ml_platform.worker.__main__ import main as run_rank
from ml_platform.worker.forking import begin_anew
from ml_platform.worker.lifeline import die_with
from ml_platform.worker.session import import_libraries

ORDER_FDS = 5
"""What comes with an order: the order itself, the rank's connection, its key, its log, and where news go."""


@dataclass(frozen=True)
class Order:
    """A rank that is wanted: arguments, environment, and the descriptors that came with the order."""

    words: list[str]
    environment: dict[str, str]
    connection: int
    key: int
    log: int
    news: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ml_platform.worker.nursery", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="process that must live")
    parser.add_argument("--orders-fd", type=int, required=True, help="connected socket")
    parser.add_argument("--with-horovod", action="store_true")
    args = parser.parse_args()
    die_with(args.parent)
    orders = socket.socket(fileno=args.orders_fd)
    os.set_inheritable(args.orders_fd, False)
    try:
        import_libraries(horovod=args.with_horovod)
    except Exception:  # noqa: BLE001  (whatever a broken installation raises)
        # Each rank tries again, and so fails itself, where its driver listens.
        traceback.print_exc()
    _let_go_of_output()
    # Arrow's allocator has a thread, which knows about forks.
    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    Nursery(orders).run()


def become_nursery(orders: socket.socket, *, parent: int) -> NoReturn:
    """What `main` does, in a process that was forked from one with the imports done."""
    try:
        os.setpgid(0, 0)
        die_with(parent)
        os.closerange(sys.stderr.fileno() + 1, orders.fileno())
        os.closerange(orders.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        _let_go_of_output()
        Nursery(orders).run()
        os._exit(0)
    except BaseException:  # noqa: BLE001  (nobody above: this was another process)
        traceback.print_exc()
        os._exit(1)


def _let_go_of_output() -> None:
    """What imports said is in the log of the rank that came first; that file is not ours for good."""
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(nothing, stream)
    os.close(nothing)


class Nursery:
    """Forks ranks, and reports their ends."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._news: dict[int, tuple[int, int]] = {}
        """By the descriptor that tells of a rank's end: its number, and where that is reported."""

    def run(self) -> None:
        """Until the driver wants no more ranks and the last one has ended."""
        poll = select.poll()
        poll.register(self._orders.fileno(), select.POLLIN)
        open_for_orders = True
        while open_for_orders or self._news:
            for descriptor, _ in poll.poll():
                if descriptor in self._news:
                    poll.unregister(descriptor)
                    self._report(descriptor)
                elif order := _received(self._orders):
                    if (watched := self.fork(order)) is not None:
                        poll.register(watched, select.POLLIN)
                else:
                    poll.unregister(descriptor)
                    open_for_orders = False

    def fork(self, order: Order) -> int | None:
        """Start a rank. Returns the descriptor that tells of its end; None where the machine has no room for
        one: its log says so, its driver hears that it hung up, and its brothers live on."""
        nursery = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            os.write(order.log, f"the rank could not be forked: {error}\n".encode())
            for descriptor in (order.connection, order.key, order.log, order.news):
                os.close(descriptor)
            return None
        if pid == 0:
            os.setpgid(0, 0)
            self._forget()
            _become_rank(order, nursery)
        with suppress(OSError):  # the rank did it first, or has ended
            os.setpgid(pid, pid)
        for descriptor in (order.connection, order.key, order.log):
            os.close(descriptor)
        _tell(order.news, f"{pid}\n")
        watched = os.pidfd_open(pid)
        self._news[watched] = (pid, order.news)
        return watched

    def _report(self, descriptor: int) -> None:
        pid, news = self._news.pop(descriptor)
        # The number stays the rank's until it is collected, so that its group can still be ended.
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        _tell(news, f"{os.waitstatus_to_exitcode(status)}\n")
        os.close(news)
        os.close(descriptor)

    def _forget(self) -> None:
        """What a rank must not hold: the nursery's orders, and its brothers."""
        self._orders.close()
        for descriptor, (_, news) in self._news.items():
            os.close(descriptor)
            os.close(news)


def _received(orders: socket.socket) -> Order | None:
    try:
        _, descriptors, _, _ = socket.recv_fds(orders, 1, ORDER_FDS)
    except ConnectionError:
        return None
    if not descriptors:
        return None
    text, connection, key, log, news = descriptors
    with os.fdopen(text, "rb") as file:
        file.seek(0)
        told = json.loads(file.read())
    return Order(told["words"], told["environment"], connection, key, log, news)


def _tell(news: int, text: str) -> None:
    with suppress(BrokenPipeError):  # the driver does not care any more
        os.write(news, text.encode())


def _become_rank(order: Order, nursery: int) -> NoReturn:
    """What the interpreter's start would have done, then a rank's life."""
    try:
        for stream in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(order.log, stream)
        os.close(order.log)
        os.close(order.news)
        os.environ.clear()
        os.environ.update(order.environment)
        begin_anew()
        options = {"parent": nursery, "control-fd": order.connection, "key-fd": order.key}
        run_rank([*order.words, *(f"--{name}={value}" for name, value in options.items())])
    except BaseException:  # noqa: BLE001  (what leaves here would end the nursery's loop twice)
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
