"""Measuring a model on a labelled part: one line per row, and metrics from the lines."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from ml_platform.errors import DataError, SpecError, StoreError, nearest
from ml_platform.evaluation.calibration import calibration_of
from ml_platform.evaluation.metrics import (
    GROUP,
    LOSS_COLUMNS,
    metrics_of,
    positive_scores,
    primary_metric,
    row_errors,
    row_losses,
)
from ml_platform.evaluation.slices import PREFIX, slices_of
from ml_platform.inference.input_check import check_input
from ml_platform.inference.raw_model import RawModel, read_manifest, read_state
from ml_platform.inference.score import frame_types, numbered, predict_rows
from ml_platform.inference.worker_models import ShippedModel, ship
from ml_platform.resources.spark_daemon import forked_with
from ml_platform.specs.problems import NumericTarget, ProblemKind
from ml_platform.specs.references import Dataset, Evaluation, Model
from ml_platform.specs.tables import FeatureState
from ml_platform.store import crash
from ml_platform.store.leftovers import builder
from ml_platform.store.location import home
from ml_platform.store.spark_failures import spark_failures
from ml_platform.store.spark_files import BATCH_ROWS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame, SparkSession

NUMBERS = {"integer", "float", "decimal"}

ROW_KEY = "__row_key"
"""Name in the frame alone; in the file it is `row_key`."""

CLASS_ROWS = "row_key bigint, label int, predicted int, log_loss double, brier double, confidence double"
"""Label and prediction are class indices: -1 for a class that the model does not know, or no prediction."""

BINARY_ROWS = f"{CLASS_ROWS}, score double"
"""Of two classes also the probability of the second one."""

NUMBER_ROWS = "row_key bigint, label double, predicted double, absolute_error double, squared_error double"
"""All in the label's own unit. A row without a prediction has a null there, and the greatest error."""


SCHEMAS: Mapping[ProblemKind, str] = {
    "binary": BINARY_ROWS,
    "multiclass": CLASS_ROWS,
    "regression": NUMBER_ROWS,
}


def measure(
    spark: SparkSession,
    model_folder: Path,
    model: Model,
    part: Dataset,
    part_name: Literal["validation", "holdout"],
    slices: Sequence[str] = (),
) -> Evaluation:
    """Score a labelled part and measure the predictions.

    Where the split of the model has groups, intervals stand on groups.

    Args:
        slices: Raw columns by whose values the rows are measured once more.

    The lines (some 40 bytes a row) are gathered in this process, sorted by row key, and kept in one Parquet
    file of their own under `home()`; the same model on the same rows gives the same lines.

    Raises:
        DataError: The part lacks columns that the model reads, or has no rows.
        SpecError: There is no such column to slice by.
        StoreError: The lines cannot be written.
    """
    from ml_platform.store.datasets import spark_frame

    rows = measured_rows(gathered(spark_frame(spark, part), part.rows), model_folder, slices)
    if rows.num_rows != part.rows:
        raise StoreError(
            f"the {part_name} part was not measured whole", wanted=f"{part.rows} rows", got=rows.num_rows
        )
    import pyarrow.compute as pc

    metrics = metrics_of(rows, len(model.classes))
    uri = _keep(rows, f"{part_name}-{part.fingerprint[:16]}-{model.digest[:16]}")
    return Evaluation(
        model=model,
        part=part_name,
        data_fingerprint=part.fingerprint,
        rows=rows.num_rows,
        groups=len(pc.unique(rows.column(GROUP))) if GROUP in rows.column_names else None,
        metrics=metrics,
        calibration=calibration_of(rows) if model.classes else None,
        slices=slices_of(rows, len(model.classes), slices),
        rows_uri=uri,
    )


def gathered(frame: DataFrame, rows: int) -> DataFrame:
    """The frame in as few partitions as it has batches: to load a network costs each worker some 5 s."""
    return frame.coalesce(max(1, rows // BATCH_ROWS))


def measured_rows(frame: DataFrame, model_folder: Path, slices: Sequence[str] = ()) -> pa.Table:
    """Losses of each row of a labelled frame (one of `SCHEMAS`), sorted by row key.

    Then a hash of the group where the split of the model has one, and the values of `slices`.

    Raises:
        DataError: Columns are missing or retyped.
        SpecError: There is no such column to slice by.
    """
    manifest, state = read_manifest(model_folder), read_state(model_folder)
    contract = manifest.contract
    check_input(contract, frame.columns, types=frame_types(frame))
    if state.label not in frame.columns:
        raise DataError(
            f"the rows to measure on lack the label {state.label!r}", got=", ".join(frame.columns)
        )
    beside, names, types = _beside(frame, manifest.split.group, slices)
    needed = tuple(dict.fromkeys([ROW_KEY, *beside, state.label, *contract.names]))
    scorer = LossScorer(ship(frame.sparkSession, model_folder), needed, tuple(names.items()))
    schema = ", ".join([SCHEMAS[state.problem], *types])
    loss = LOSS_COLUMNS[primary_metric(state.problem)]
    with forked_with(scorer.model.imports):
        scored = numbered(keyed(frame).withColumns(beside), needed).mapInArrow(scorer, schema)
    with spark_failures("a model could not be measured"):
        lines = scored.toArrow()
    return lines.sort_by([(name, "ascending") for name in ("row_key", "label", loss)])


def read_rows(evaluation: Evaluation) -> pa.Table:
    """The lines of an evaluation.

    Raises:
        StoreError: They are gone or unreadable, or not as many as were measured.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(unquote(urlsplit(evaluation.rows_uri).path))
    try:
        rows = pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"the measured rows {path} cannot be read", got=error) from error
    if rows.num_rows != evaluation.rows:
        raise StoreError(f"the measured rows {path} changed", wanted=evaluation.rows, got=rows.num_rows)
    return rows


@dataclass(frozen=True)
class LossScorer:
    """What runs on executors: keyed, labelled rows in, losses out."""

    model: ShippedModel
    names: tuple[str, ...]
    """Names of the numbered columns that come in."""
    beside: tuple[tuple[str, str], ...] = ()
    """Those that go out as they come in, and their names there."""

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        model = self.model.open()
        for batch in batches:
            if batch.num_rows:
                yield self.score(model, batch.rename_columns(list(self.names)))

    def score(self, model: RawModel, batch: pa.RecordBatch) -> pa.RecordBatch:
        """One batch of rows."""
        import numpy as np
        import pyarrow as pa

        outputs, errors = predict_rows(model, batch)
        failed = np.array([error is not None for error in errors])
        key, label = batch.column(ROW_KEY), batch.column(model.state.label)
        target = model.state.target
        lines = (
            _class_lines(outputs, label, failed, model.state)
            if target is None
            else _number_lines(outputs[:, 0], label, failed, target)
        )
        beside = {there: batch.column(here) for here, there in self.beside}
        return pa.RecordBatch.from_pydict({"row_key": key, **lines, **beside})


def _class_lines(
    probabilities: NDArray[np.float32], label: pa.Array, failed: NDArray[np.bool_], state: FeatureState
) -> dict[str, pa.Array]:
    import numpy as np
    import pyarrow as pa

    from ml_platform.features.apply import encode_labels

    labels = encode_labels(label, state).astype(np.int32, copy=False)
    losses = row_losses(probabilities, labels, failed)
    binary = state.problem == "binary"
    scores = {"score": pa.array(positive_scores(probabilities, labels, failed))} if binary else {}
    return {
        "label": pa.array(labels),
        "predicted": pa.array(np.where(failed, -1, probabilities.argmax(axis=1)), pa.int32()),
        "log_loss": pa.array(losses["log_loss"]),
        "brier": pa.array(losses["brier"]),
        "confidence": pa.array(probabilities.max(axis=1).astype(np.float64)),
        **scores,
    }


def _number_lines(
    predicted: NDArray[np.float64], label: pa.Array, failed: NDArray[np.bool_], target: NumericTarget
) -> dict[str, pa.Array]:
    import numpy as np
    import pyarrow as pa

    from ml_platform.features.labels import label_values

    labels, values = label_values(label), predicted.astype(np.float64)
    errors = row_errors(values, labels, failed, target.scale)
    return {
        "label": pa.array(labels),
        "predicted": pa.array(values, mask=failed),
        **{name: pa.array(error) for name, error in errors.items()},
    }


def _beside(
    frame: DataFrame, group: str | None, slices: Sequence[str]
) -> tuple[dict[str, Column], dict[str, str], list[str]]:
    """Columns to keep beside each row's losses, their names among the lines, and these with their types."""
    from ml_platform.store.fingerprint import key_hash, named

    columns, names, types = {}, {}, []
    if group is not None and group in frame.columns:
        columns["__group"], names["__group"] = key_hash([frame.schema[group]], ""), GROUP
        types.append(f"{GROUP} bigint")
    for at, name in enumerate(slices):
        if name not in frame.columns:
            raise SpecError(f"cannot slice by {name!r}: no such column", hint=nearest(name, frame.columns))
        kind = "double" if frame_types(frame).get(name) in NUMBERS else "string"
        columns[f"__slice_{at}"], names[f"__slice_{at}"] = named(name).cast(kind), f"{PREFIX}{name}"
        types.append(f"`{PREFIX}{name.replace('`', '``')}` {kind}")
    return columns, names, types


def keyed(frame: DataFrame) -> DataFrame:
    """The frame with a hash of each row; a null differs from every value and from its neighbour's."""
    from ml_platform.store.fingerprint import row_hash

    return frame.withColumn(ROW_KEY, row_hash(frame.schema, ROW_KEY))


def _keep(rows: pa.Table, name: str) -> str:
    import pyarrow.parquet as pq

    # A name of its own each time: an earlier evaluation that was stored must stay what it was.
    path = home() / "evaluations" / f"{name}-{uuid.uuid4().hex[:8]}.parquet"
    building = path.parent / f".{path.name}.{builder()}"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        pq.write_table(rows, building, compression="zstd")
        crash.point("before an evaluation appears")
        building.replace(path)
    except OSError as error:
        raise StoreError(f"the measured rows cannot be written to {path}", got=error) from error
    finally:
        building.unlink(missing_ok=True)
    return path.as_uri()
