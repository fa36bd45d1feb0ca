"""One Prefect server for all sides that need one, drained before each block."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.client.base import PrefectHttpxSyncClient

from bench.sides import WrongAnswerError
from ml_platform.engine.server import TemporaryServer

DRAIN_S = 300
_LEAN = {"PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false"}
"""No automations: they would double what the server works off, for every side alike."""


class Server:
    """Counts what it was sent, and waits until all of that is recorded."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._sent: dict[str, int] = {}

    def sent(self, flow_run: str, task_runs: int) -> None:
        """A side started this many task runs in a flow run."""
        self._sent[flow_run] = task_runs

    def drain(self) -> None:
        """Wait for the end of every task run: an undrained server measures the block before."""
        deadline = time.monotonic() + DRAIN_S
        for flow_run, wanted in list(self._sent.items()):
            while (found := self._recorded(flow_run)) < wanted:
                if time.monotonic() > deadline:
                    raise WrongAnswerError(
                        f"the server has recorded {found} of {wanted} task runs of {flow_run}"
                    )
                time.sleep(0.2)
            del self._sent[flow_run]

    def _recorded(self, flow_run: str) -> int:
        final = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]
        content: dict[str, Any] = {
            "flow_runs": {"id": {"any_": [flow_run]}},
            "task_runs": {"state": {"type": {"any_": final}}},
        }
        # Prefect's own client asks again after 503, which its server answers while its database is locked.
        with PrefectHttpxSyncClient(timeout=60) as client:
            return int(client.post(f"{self.url}/task_runs/count", json=content).json())


@contextmanager
def prefect_server() -> Iterator[Server]:
    """A server with a database of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-server-") as folder:
        before = dict(os.environ)
        os.environ.update(_LEAN, ML_PLATFORM_HOME=folder)
        server = TemporaryServer()
        os.environ.clear()
        os.environ.update(before)
        try:
            yield Server(server.url())
        finally:
            server.stop()
