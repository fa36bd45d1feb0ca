"""Scoring tables on Spark with a raw model: each row gets a prediction or an error; no row fails the job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import SpecError, nearest, one_line
from ml_platform.inference.columns import PREDICTION_COLUMNS
from ml_platform.inference.destination import write_predictions
from ml_platform.inference.input_check import check_input
from ml_platform.inference.raw_model import RawModel, read_manifest, read_state
from ml_platform.inference.worker_models import ShippedModel, ship
from ml_platform.specs.contracts import Contract
from ml_platform.specs.problems import ProblemKind
from ml_platform.specs.references import Predictions, Version

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

STAMP_COLUMNS = ("error", "model_name", "model_version")
SCORE_COLUMNS = (*PREDICTION_COLUMNS, *STAMP_COLUMNS)
"""Columns that scoring adds, in this order; without probabilities where a number is predicted."""


def score_frame(
    frame: DataFrame,
    folder: Path,
    contract: Contract,
    *,
    keys: Sequence[str] | None = None,
    version: Version | None = None,
) -> DataFrame:
    """Predictions beside the key columns of `frame`; lazy, one pass, no shuffle.

    Args:
        folder: A raw model's folder.
        contract: Its raw input.
        keys: Columns to keep as they are. None: all of them.
        version: Named in each row; null in both columns without one.
    Returns:
        The kept columns, then `prediction`, of classes `probability` and `probabilities`, then `error`,
        `model_name`, `model_version`. A row that cannot be scored has nulls and a text in `error`.
    Raises:
        DataError: Columns are missing or retyped.
        SpecError: A key is unknown, or has the name of a column that scoring adds.
    """
    check_input(
        contract, frame.columns, types=frame_types(frame), model=version.uri if version else "the model"
    )
    keep = _kept(frame, keys)
    needed = [*keep, *(name for name in contract.names if name not in keep)]
    name, number = (version.name, version.version) if version else (None, None)
    scorer = RowScorer(ship(frame.sparkSession, folder), tuple(needed), tuple(keep), name, number)
    return numbered(frame, needed).mapInArrow(scorer, _schema(frame, keep, read_state(folder).problem))


def score_table(
    spark: SparkSession,
    model_folder: Path,
    version: Version,
    source: DataFrame,
    *,
    keys: Sequence[str] | None = None,
    destination: str,
    day: date | None = None,
) -> Predictions:
    """Score a table and write the predictions: the whole result appears at `destination`, or nothing changes.

    Args:
        destination: A local folder, as a path or a file:// URI. Predictions of ours that it holds are
            replaced once the new ones are complete.
        day: Add the predictions there as the partition of this day, in place of those of the same day.
    Raises:
        StoreError: The destination cannot be written, or holds something that scoring did not write.
        DataError, SpecError: As `score_frame`.
    """
    contract = read_manifest(model_folder).contract
    scored = score_frame(source, model_folder, contract, keys=keys, version=version)
    written = write_predictions(scored, destination, version, day)
    return Predictions(
        uri=written.uri,
        rows=written.rows,
        failed_rows=written.failed_rows,
        model_uri=version.uri,
        model_version=version.version,
    )


def frame_types(frame: DataFrame) -> dict[str, str]:
    """Column types of a Spark frame in the words of a contract; columns of other types are left out."""
    words = {
        "integer": r"tinyint|smallint|int|bigint",
        "float": r"float|double",
        "decimal": r"decimal\(.*\)",
        "boolean": "boolean",
        "string": "string",
        "date": "date",
        "timestamp": r"timestamp(_ntz)?",
        "binary": "binary",
        "list": "array<.*",
        "map": "map<.*",
    }
    found = {}
    for name, kind in frame.dtypes:
        word = next((word for word, pattern in words.items() if re.fullmatch(pattern, kind)), None)
        if word is not None:
            found[name] = word
    return found


def numbered(frame: DataFrame, names: Sequence[str]) -> DataFrame:
    """These columns, called c0, c1, …: `mapInArrow` takes dots and backticks in a name for syntax."""
    from ml_platform.store.fingerprint import named

    return frame.select(*(named(name).alias(f"c{at}") for at, name in enumerate(names)))


@dataclass(frozen=True)
class RowScorer:
    """What runs on executors: record batches in, the kept columns and predictions out."""

    model: ShippedModel
    names: tuple[str, ...]
    """Names of the numbered columns that come in."""
    keep: tuple[str, ...]
    model_name: str | None
    model_version: int | None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        model = self.model.open()
        for batch in batches:
            yield self.score(model, batch.rename_columns(list(self.names)))

    def score(self, model: RawModel, batch: pa.RecordBatch) -> pa.RecordBatch:
        """One batch. Never raises for a row."""
        import pyarrow as pa

        kept = {name: batch.column(name) for name in self.keep}
        scored = scored_columns(model, batch, self.model_name, self.model_version)
        return pa.RecordBatch.from_pydict({**kept, **scored})


def scored_columns(
    model: RawModel, batch: pa.RecordBatch, name: str | None, version: int | None
) -> dict[str, pa.Array]:
    """What scoring adds to one batch, by name: predictions, then `STAMP_COLUMNS`. Never raises for a row."""
    import pyarrow as pa

    outputs, errors = predict_rows(model, batch)
    failed = pa.array([error is not None for error in errors], pa.bool_())
    predicted = model.columns(outputs)
    batches = predicted.to_batches()
    values = _nulled(batches[0].columns if batches else [], failed)
    rows = batch.num_rows
    stamp = [pa.array(errors, pa.string()), pa.array([name] * rows, pa.string())]
    stamp.append(pa.array([version] * rows, pa.int32()))
    names = [*predicted.column_names, *STAMP_COLUMNS]
    return dict(zip(names, [*values, *stamp], strict=True))


def predict_rows(model: RawModel, batch: pa.RecordBatch) -> tuple[NDArray[Any], list[str | None]]:
    """What the model predicts for a batch, and an error text for each row that has nothing.

    A batch that fails is halved until the bad rows stand alone, so that a few of them cost little.

    Returns:
        Shape (rows, outputs), zeros where a row failed; and one text or None per row.
    """
    import numpy as np

    try:
        outputs = model.predict(batch)
    except Exception as error:  # noqa: BLE001  (whatever a row provokes is that row's error)
        if batch.num_rows == 1:
            return np.zeros((1, model.state.outputs), np.float32), [one_line(error)]
        half = batch.num_rows // 2
        parts = [predict_rows(model, piece) for piece in (batch.slice(0, half), batch.slice(half))]
        return np.concatenate([part[0] for part in parts]), [text for part in parts for text in part[1]]
    finite = np.asarray(np.isfinite(outputs).all(axis=1))
    errors = [None if fine else "the model's output is not a number" for fine in finite]
    return np.where(finite[:, None], outputs, np.float32(0)), errors


def _nulled(columns: Sequence[pa.Array], failed: pa.Array) -> list[pa.Array]:
    """The columns with nulls where a row failed."""
    import numpy as np
    import pyarrow as pa

    if not columns or not failed.true_count:
        return list(columns)
    rows = np.arange(len(failed))
    indices = pa.array(rows, mask=failed.to_numpy(zero_copy_only=False))
    return [column.take(indices) for column in columns]


def _kept(frame: DataFrame, keys: Sequence[str] | None) -> list[str]:
    keep = list(frame.columns if keys is None else dict.fromkeys(keys))
    unknown = [name for name in keep if name not in frame.columns]
    if unknown:
        raise SpecError(f"no key column {unknown[0]!r} in the table", hint=nearest(unknown[0], frame.columns))
    taken = [name for name in keep if name.lower() in SCORE_COLUMNS]
    if taken:
        raise SpecError(
            f"the table has a column {taken[0]!r}, a name that scoring gives to its own",
            wanted=f"none of {', '.join(SCORE_COLUMNS)}",
            hint="rename it, or name the key columns to keep",
        )
    return keep


def _schema(frame: DataFrame, keep: Sequence[str], problem: ProblemKind) -> StructType:
    from pyspark.sql import types as T  # noqa: N812

    predicted = [
        T.StructField("prediction", T.StringType()),
        T.StructField("probability", T.DoubleType()),
        T.StructField("probabilities", T.MapType(T.StringType(), T.DoubleType())),
    ]
    if problem == "regression":
        predicted = [T.StructField("prediction", T.DoubleType())]
    added = [
        *predicted,
        T.StructField("error", T.StringType()),
        T.StructField("model_name", T.StringType()),
        T.StructField("model_version", T.IntegerType()),
    ]
    return T.StructType([*(frame.schema[name] for name in keep), *added])
