"""Metrics on their way to MLflow: collected, sent in batches by whoever logs next, and at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING

from ml_platform.errors import TrackingError
from ml_platform.tracking.server import ask, refused

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

BATCH_POINTS = 1_000
"""Most points that MLflow takes in one request."""
SEND_EVERY_S = 1.0
PAUSE_AFTER_FAILURE_S = 15.0

log = logging.getLogger(__name__)


class MetricQueue:
    """Points that wait to be sent, of all runs of one flow run. Safe to use from several threads.

    While a run is open, trouble with the server costs no training: points are kept and sent later.
    What MLflow refuses is an error at once.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._waiting: dict[str, list[Metric]] = {}
        self._guard = Lock()
        self._sending = Lock()
        self._due = 0.0

    def add(self, run_id: str, points: Iterable[Metric]) -> None:
        """Queue points of a run; send what waits when the last time was a second ago.

        Raises:
            TrackingError: MLflow refused a point (its name, say).
        """
        self._put(run_id, points)
        if time.monotonic() >= self._due:
            self._send_unless_busy()

    def flush(self) -> None:
        """Send everything that waits.

        Raises:
            TrackingError: MLflow did not take it; what it did not take is kept.
        """
        with self._sending:
            self._send()

    def _send_unless_busy(self) -> None:
        if not self._sending.acquire(blocking=False):
            return
        try:
            self._send()
        except TrackingError as error:
            if refused(error):
                raise
            self._due = time.monotonic() + PAUSE_AFTER_FAILURE_S
            log.warning("metrics are kept and sent later: %s", error)
        finally:
            self._sending.release()

    def _send(self) -> None:
        self._due = time.monotonic() + SEND_EVERY_S
        while batch := self._take():
            run_id, points = batch
            try:
                ask("take metrics", self._client.log_batch, run_id, metrics=points)
            except TrackingError as error:
                if not refused(error):
                    self._put(run_id, points)
                raise

    def _take(self) -> tuple[str, list[Metric]] | None:
        with self._guard:
            for run_id, points in self._waiting.items():
                self._waiting[run_id] = points[BATCH_POINTS:]
                if not self._waiting[run_id]:
                    del self._waiting[run_id]
                return run_id, points[:BATCH_POINTS]
        return None

    def _put(self, run_id: str, points: Iterable[Metric]) -> None:
        with self._guard:
            self._waiting.setdefault(run_id, []).extend(points)
