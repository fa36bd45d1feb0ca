"""MLflow runs: one per flow run, nested ones inside it, open for writing from several threads."""

from __future__ import annotations

import getpass
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ml_platform.errors import TrackingError
from ml_platform.specs.contracts import Contract
from ml_platform.specs.references import Dataset, Model, ModelFamily
from ml_platform.specs.tracking import TrackingNotes, TrackingRun
from ml_platform.store.leftovers import builder, is_dead
from ml_platform.tracking import entries, models
from ml_platform.tracking.later import BATCH, LaterRuns
from ml_platform.tracking.metrics import MetricQueue
from ml_platform.tracking.server import ask, client
from ml_platform.tracking.uris import database_file, tracking_uri

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow import MlflowClient

PROCESS = "ml_platform.process"
"""Tag with the process that writes a run."""

T = TypeVar("T")

log = logging.getLogger(__name__)


@contextmanager
def open_tracking(*, experiment: str, run_name: str, tags: Mapping[str, str]) -> Iterator[TrackingRun]:
    """The MLflow run of one flow run; ended when the code inside ends.

    Args:
        experiment: Made when there is none of this name.
        run_name: What MLflow's pages show.
        tags: On this run, on the runs nested in it, and on the models they log.
    Yields:
        The run. It ends FINISHED, FAILED after an error, KILLED after an interrupt or a cancellation.
    Raises:
        TrackingError: MLflow did not do what it was asked.
    """
    mlflow = client()
    experiment_id = _experiment(mlflow, experiment)
    _end_abandoned(mlflow, experiment_id)
    later = LaterRuns(mlflow, experiment_id)
    writer = Writer(mlflow, MetricQueue(mlflow), later, experiment_id, dict(tags))
    run = _start(writer, run_name, {**_origin(), **tags})
    with _ending(run), _written(later):
        yield run


@dataclass(frozen=True)
class Writer:
    """What all runs of one flow run are written with, and the tags that all of them carry."""

    mlflow: MlflowClient
    queue: MetricQueue
    later: LaterRuns
    experiment_id: str
    tags: Mapping[str, str]


class MlflowRun:
    """One MLflow run; what `TrackingRun` promises."""

    def __init__(self, writer: Writer, run_id: str) -> None:
        self.run_id = run_id
        self._writer = writer
        self._mlflow = writer.mlflow
        self._queue = writer.queue

    @contextmanager
    def nested(self, name: str, tags: Mapping[str, object] = {}) -> Iterator[TrackingRun]:
        """A run of its own inside this one; ended when the code inside ends."""
        run = _start(self._writer, name, self._tags_inside(tags))
        with _ending(run):
            yield run

    def nested_later(
        self, name: str, tags: Mapping[str, object] = {}
    ) -> AbstractContextManager[TrackingNotes]:
        """The same, of which all is written when there is time."""
        return self._writer.later.open(name, self._tags_inside(tags))

    def _tags_inside(self, tags: Mapping[str, object]) -> dict[str, str]:
        own = {tag.key: tag.value for tag in entries.tags(tags)}
        return {**_origin(), **self._writer.tags, **own, "mlflow.parentRunId": self.run_id}

    def at(self, run_id: str) -> TrackingRun:
        """Another run, for adding to what it has. Its metrics are sent with this run's, at the latest."""
        found = ask(f"read run {run_id}", self._mlflow.get_run, run_id)
        return MlflowRun(replace(self._writer, experiment_id=found.info.experiment_id), run_id)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Parameters; nested models and mappings are flattened with dots, long values cut."""
        for batch in _batches(entries.params(params)):
            ask("take parameters", self._mlflow.log_batch, self.run_id, params=batch)

    def log_metrics(
        self,
        metrics: Mapping[str, float],
        *,
        step: int | None = None,
        model: Model | None = None,
        dataset: Dataset | None = None,
    ) -> None:
        """Metrics at a step, of a logged model and on a data set if named; sent in batches.

        Raises:
            TrackingError: MLflow refused one. A server in trouble is no error before the run closes.
        """
        points = entries.points(metrics, step=step or 0, model=model, dataset=dataset)
        self._queue.add(self.run_id, points)

    def log_input(self, dataset: Dataset, *, context: str) -> None:
        """A data set that this run read: name, fingerprint, schema, rows; `context` says what for."""
        given = entries.dataset_input(dataset, context)
        ask("take an input", self._mlflow.log_inputs, self.run_id, datasets=[given])

    def log_figure(self, figure: Any, artifact_file: str) -> None:
        """A matplotlib figure as a picture."""
        ask("store a picture", self._mlflow.log_figure, self.run_id, figure, artifact_file)

    def log_text(self, text: str, artifact_file: str) -> None:
        """Text as an artifact."""
        ask("store a text", self._mlflow.log_text, self.run_id, text, artifact_file)

    def log_table(self, columns: Mapping[str, Sequence[object]], artifact_file: str) -> None:
        """Columns as a table that MLflow's pages show."""
        data = {name: list(values) for name, values in columns.items()}
        ask("store a table", self._mlflow.log_table, self.run_id, data, artifact_file)

    def log_file(self, path: Path) -> str:
        """A file as an artifact, under its own name."""
        ask("store a file", self._mlflow.log_artifact, self.run_id, str(path))
        return f"runs:/{self.run_id}/{path.name}"

    def latest(self, metric: str, tags: Mapping[str, object]) -> float | None:
        """The metric of the newest finished run of this experiment that has these tags and it."""
        wanted = [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
        found = ask(
            "search runs",
            self._mlflow.search_runs,
            [self._writer.experiment_id],
            filter_string=" and ".join([*wanted, "attributes.status = 'FINISHED'"]),
            order_by=["attributes.start_time DESC"],
            max_results=10,
        )
        values = (run.data.metrics.get(metric) for run in found)
        return next((float(value) for value in values if value is not None), None)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Tags of the run; long values are cut."""
        for batch in _batches(entries.tags(tags)):
            ask("take tags", self._mlflow.log_batch, self.run_id, tags=batch)

    def log_model(
        self,
        *,
        folder: Path,
        family: ModelFamily,
        contract: Contract,
        classes: tuple[str, ...],
        train: Dataset,
        ranks: int = 1,
        example: pa.Table,
    ) -> Model:
        """Log a finished raw-model folder as an MLflow model; see `models.log_model`."""
        candidate = models.Candidate(
            folder=folder, family=family, contract=contract, classes=classes, train=train, ranks=ranks
        )
        writer = self._writer
        place = models.Place(run_id=self.run_id, experiment_id=writer.experiment_id, tags=writer.tags)
        return models.log_model(self._mlflow, candidate, place, example=example)

    def end(self, status: str) -> None:
        """Send what waits, then close the run as FINISHED, FAILED or KILLED."""
        try:
            self._queue.flush()
        finally:
            ask("end a run", self._mlflow.set_terminated, self.run_id, status)


def _batches(items: list[T]) -> Iterator[list[T]]:
    for first in range(0, len(items), BATCH):
        yield items[first : first + BATCH]


def _start(writer: Writer, name: str, tags: Mapping[str, str]) -> MlflowRun:
    create = writer.mlflow.create_run
    made = ask("start a run", create, writer.experiment_id, run_name=name, tags=dict(tags))
    return MlflowRun(writer, made.info.run_id)


@contextmanager
def _written(later: LaterRuns) -> Iterator[None]:
    """Runs that nobody waited for are written before the one that they belong to ends, however it does."""
    try:
        yield
    except BaseException:
        try:
            later.finish()
        except TrackingError as trouble:
            log.warning("runs could not be written: %s", trouble)
        raise
    later.finish()


@contextmanager
def _ending(run: MlflowRun) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        cancelled = isinstance(error, CancelledError) or not isinstance(error, Exception)
        _end_quietly(run, "KILLED" if cancelled else "FAILED")
        raise
    run.end("FINISHED")


def _end_quietly(run: MlflowRun, status: str) -> None:
    """End a run while another error is on its way: that one must reach the person, not ours."""
    try:
        run.end(status)
    except TrackingError as trouble:
        log.warning("run %s could not be ended as %s: %s", run.run_id, status, trouble)


def _end_abandoned(mlflow: MlflowClient, experiment_id: str) -> None:
    """End, as KILLED, what processes of this machine were writing when they were killed."""
    running = "attributes.status = 'RUNNING'"
    found = ask("search runs", mlflow.search_runs, [experiment_id], filter_string=running, max_results=BATCH)
    for run in found:
        if is_dead(run.data.tags.get(PROCESS, "")):
            ask("end a run", mlflow.set_terminated, run.info.run_id, "KILLED")


def _experiment(mlflow: MlflowClient, name: str) -> str:
    found = ask("read the experiment", mlflow.get_experiment_by_name, name)
    if found is None:
        return _new_experiment(mlflow, name)
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment {name!r} was deleted in MLflow",
            hint=f"restore it: mlflow experiments restore --experiment-id {found.experiment_id}",
        )
    return str(found.experiment_id)


def _new_experiment(mlflow: MlflowClient, name: str) -> str:
    try:
        place = _artifact_folder(tracking_uri())
        return ask("make the experiment", mlflow.create_experiment, name, artifact_location=place)
    except TrackingError as error:
        # Another process made it just now.
        if getattr(error.__cause__, "error_code", None) == "RESOURCE_ALREADY_EXISTS":
            return _experiment(mlflow, name)
        raise


def _artifact_folder(uri: str) -> str | None:
    """Beside the database when it is a file: MLflow's default is the folder one happens to be in."""
    file = database_file(uri)
    return None if file is None else (file.parent / "mlartifacts").as_uri()


def _origin() -> dict[str, str]:
    name = Path(sys.argv[0] or "python").name
    return {"mlflow.user": _user(), "mlflow.source.name": name, PROCESS: builder()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # In a container the number may have no name.
        return str(os.getuid())
