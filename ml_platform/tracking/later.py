"""Runs that nobody waits for: written beside the work, in as few requests as there is time for."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING

from ml_platform.errors import TrackingError
from ml_platform.tracking import entries
from ml_platform.tracking.metrics import PAUSE_AFTER_FAILURE_S
from ml_platform.tracking.server import ask, refused

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

BATCH = 100
"""Most parameters, or tags, that MLflow takes in one request."""
BATCH_POINTS = 1_000
PAUSES = 100
"""How much longer than a run's writing took the writer rests, until all is to be written.

MLflow takes some 20 ms of a processor for a run. Where work is short that is much of its time: then most runs
are written when it is over.
"""

log = logging.getLogger(__name__)


class LaterRuns:
    """Writes the runs of one flow run in a thread of its own. Safe to use from several threads.

    Trouble with the server is none while the work goes on: what could not be sent is sent later.
    """

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._changed: dict[LaterRun, None] = {}
        self._guard = Condition()
        self._hurry = Event()
        self._thread: Thread | None = None
        self._failure: TrackingError | None = None

    @contextmanager
    def open(self, name: str, tags: Mapping[str, str]) -> Iterator[LaterRun]:
        """A run that ends with the code inside: FINISHED, FAILED after an error, KILLED after a stop."""
        run = LaterRun(self, name, tags)
        self.note(run)
        try:
            yield run
        except BaseException as error:
            killed = isinstance(error, CancelledError) or not isinstance(error, Exception)
            run.end("KILLED" if killed else "FAILED")
            raise
        run.end("FINISHED")

    def finish(self) -> None:
        """Write all that is left.

        Raises:
            TrackingError: MLflow did not take something.
        """
        self._hurry.set()
        with self._guard:
            self._guard.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def note(self, run: LaterRun) -> None:
        """There is something new to write of a run."""
        with self._guard:
            self._changed[run] = None
            if self._thread is None:
                self._thread = Thread(target=self._write, name="tracking-later", daemon=True)
                self._thread.start()
            self._guard.notify_all()

    def _write(self) -> None:
        while (run := self._next()) is not None:
            began = time.monotonic()
            try:
                run.write(self._client, self._experiment_id)
            except TrackingError as error:
                if refused(error):
                    self._failure = self._failure or error
                elif self._hurry.is_set():
                    self._failure = error
                    return
                else:
                    log.warning("a run is written later: %s", error)
                    self.note(run)
                    self._hurry.wait(PAUSE_AFTER_FAILURE_S)
            self._hurry.wait(PAUSES * (time.monotonic() - began))

    def _next(self) -> LaterRun | None:
        """The run that waits longest; None when all is written and nothing more will come."""
        with self._guard:
            self._guard.wait_for(lambda: self._changed or self._hurry.is_set())
            run = next(iter(self._changed), None)
            if run is not None:
                del self._changed[run]
            return run


class LaterRun:
    """One run: what was noted of it, and has not been written yet."""

    def __init__(self, runs: LaterRuns, name: str, tags: Mapping[str, str]) -> None:
        self._runs = runs
        self._name = name
        self._first_tags = dict(tags)
        self._began_ms = int(time.time() * 1000)
        self._run_id: str | None = None
        self._params: list[Param] = []
        self._points: list[Metric] = []
        self._tags: list[RunTag] = []
        self._ended: tuple[str, int] | None = None

    def log_params(self, params: Mapping[str, object]) -> None:
        """Parameters; nested models and mappings are flattened with dots, long values cut."""
        self._params += entries.params(params)
        self._runs.note(self)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Metrics at a step."""
        self._points += entries.points(metrics, step=step or 0, model=None, dataset=None)
        self._runs.note(self)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Tags of the run; long values are cut."""
        self._tags += entries.tags(tags)
        self._runs.note(self)

    def end(self, status: str) -> None:
        """It is over now, as FINISHED, FAILED or KILLED."""
        self._ended = status, int(time.time() * 1000)
        self._runs.note(self)

    def write(self, client: MlflowClient, experiment_id: str) -> None:
        """Send what was noted by now. What was not taken is kept. From one thread only.

        Raises:
            TrackingError: MLflow did not take it.
        """
        if self._run_id is None:
            made = ask(
                "start a run",
                client.create_run,
                experiment_id,
                start_time=self._began_ms,
                tags=self._first_tags,
                run_name=self._name,
            )
            self._run_id = made.info.run_id
        ended = self._ended  # before what was noted is looked at: nothing comes after the end
        while self._params or self._points or self._tags:
            params, points = self._params[:BATCH], self._points[:BATCH_POINTS]
            tags = self._tags[:BATCH]
            log_batch = client.log_batch
            ask("take a run's facts", log_batch, self._run_id, params=params, metrics=points, tags=tags)
            # What others add meanwhile comes behind.
            del self._params[: len(params)], self._points[: len(points)], self._tags[: len(tags)]
        if ended is not None:
            status, ended_ms = ended
            ask("end a run", client.set_terminated, self._run_id, status, ended_ms)
            self._ended = None  # it may be looked at once more for what was noted meanwhile
