"""What runs in a Spark task that takes functions; see `ml_platform.resources.executor_call`."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from ml_platform.worker.handshake import Caller
from ml_platform.worker.keeper import DriverAddress, connected
from ml_platform.worker.messages import Job, Result


@dataclass(frozen=True)
class Serve:
    """Takes functions from the driver, one after the other, until it hangs up."""

    driver: DriverAddress
    number: int

    def __call__(self, rows: Iterable[int]) -> Iterator[int]:
        for _ in rows:
            pass  # a worker that leaves some unread is not used again
        channel = connected(self.driver, Caller("keeper", self.number))
        try:
            while True:
                asked = channel.receive()
                assert isinstance(asked, Job)
                channel.send(Result(asked.number, _answer(asked.payload)))
        except EOFError:
            yield from ()
        finally:
            channel.close()


def _answer(function: bytes) -> bytes:
    try:
        found: tuple[bool, Any] = False, pickle.loads(function)()
    except Exception as error:  # noqa: BLE001  (it is raised where the call was made)
        found = True, error
    pickled: bytes = cloudpickle.dumps(found)
    return pickled
