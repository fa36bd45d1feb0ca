"""Scoring tables on Spark with a raw model: each row gets a prediction or an error; no row fails the job."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import SpecError, nearest, one_line
from ml_platform.inference.columns import PREDICTION_COLUMNS
from ml_platform.inference.destination import Scored, write_predictions
from ml_platform.inference.input_check import check_input
from ml_platform.inference.parts import (
    SCHEMA,
    DirectParts,
    FrameParts,
    Part,
    PartWriter,
    RowsPart,
    Scorer,
    base_digest,
)
from ml_platform.inference.progress import progress
from ml_platform.inference.raw_model import RawModel, read_manifest, read_state
from ml_platform.inference.worker_models import ShippedModel, ship
from ml_platform.resources.spark_daemon import forked_with
from ml_platform.specs.contracts import Contract
from ml_platform.specs.problems import ProblemKind
from ml_platform.specs.references import Predictions, Version
from ml_platform.store.fingerprint import named
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

STAMP_COLUMNS = ("error", "model_name", "model_version")
SCORE_COLUMNS = (*PREDICTION_COLUMNS, *STAMP_COLUMNS)
"""Columns that scoring adds, in this order; without probabilities where a number is predicted."""
TASKS_PER_CORE = 4
"""Spark tasks that share the parts of files: few enough to start quickly, enough to end together."""


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
    keep = kept(frame.columns, keys)
    needed = [*keep, *(name for name in contract.names if name not in keep)]
    name, number = (version.name, version.version) if version else (None, None)
    scorer = RowScorer(ship(frame.sparkSession, folder), tuple(needed), tuple(keep), name, number)
    with forked_with(scorer.imports):
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
    parts: Sequence[RowsPart] = (),
    unread: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> Predictions:
    """Score a table and write the predictions: the whole result appears at `destination`, or nothing changes.

    Parts of the table that these very predictions hold already, or that a scoring finished before it was
    killed, are taken over: a part is scored again when its rows, the model, the kept columns or the code of
    scoring have changed.

    Args:
        destination: A local folder, as a path or a file:// URI. Predictions of ours that it holds are
            replaced once the new ones are complete.
        day: Add the predictions there as the partition of this day, in place of those of the same day.
        parts: All rows of `source`, for executors to read them without Spark's help: it is asked for the
            columns alone. Those that are known to be scored already are not read at all.
        unread: Column that says of a row why it could not be read; that is its error then.
        tell: Called with a line of progress now and then.
    Raises:
        StoreError: The destination cannot be written, or holds something that scoring did not write.
        DataError, SpecError: As `score_frame`.
    """
    stamp = Stamp(version.uri, version.name, version.version, version.model.digest, version.model.uri)
    return score_raw(
        spark,
        model_folder,
        stamp,
        source,
        keys=keys,
        output=Output(destination, day, tell),
        parts=parts,
        unread=unread,
    )


@dataclass(frozen=True)
class Stamp:
    """What the rows and the folder say of the model."""

    uri: str
    name: str | None
    version: int | None
    digest: str
    logged: str = ""
    """URI of the logged model behind a version."""

    def marker(self) -> dict[str, object]:
        """For the folder."""
        return {
            "model_name": self.name,
            "model_version": self.version,
            "model_uri": self.logged or self.uri,
            "model_digest": self.digest,
        }


@dataclass(frozen=True)
class Output:
    """Where predictions go, and whom to tell how far they are."""

    destination: str
    day: date | None = None
    tell: Callable[[str], None] | None = None


def score_raw(
    spark: SparkSession,
    folder: Path,
    stamp: Stamp,
    source: DataFrame,
    *,
    keys: Sequence[str] | None,
    output: Output,
    parts: Sequence[RowsPart] = (),
    unread: str | None = None,
) -> Predictions:
    """Score a table with a raw model. Raises as `score_table`."""
    contract = read_manifest(folder).contract
    table = source if unread is None else source.drop(named(unread))
    check_input(contract, table.columns, types=frame_types(table), model=stamp.uri)
    keep = kept(table.columns, keys)
    read = [*contract.names, *([] if unread is None else [unread])]
    needed = [*keep, *(name for name in read if name not in keep)]
    scorer = RowScorer(ship(spark, folder), tuple(needed), tuple(keep), stamp.name, stamp.version, unread)
    schema = _schema(source, keep, read_state(folder).problem)
    return ScoringJob(source, tuple(needed), scorer, schema, tuple(parts)).write(stamp, output)


@dataclass(frozen=True)
class ScoringJob:
    """A table, what scores it, and the types of what is written."""

    source: DataFrame
    needed: tuple[str, ...]
    scorer: Scorer
    schema: StructType
    parts: tuple[RowsPart, ...] = ()
    """All rows of the source, where executors can read them without Spark."""

    def write(self, stamp: Stamp, output: Output, *facts: object) -> Predictions:
        """Score all of it, and put it in its place.

        Args:
            facts: What else decides what the predictions are.
        """
        base = base_digest(stamp.digest, stamp.name, stamp.version, self.needed, self.schema.json(), *facts)
        run = partial(self.run, base=base, tell=output.tell)
        written = write_predictions(run, output.destination, stamp.marker(), output.day)
        return Predictions(
            uri=written.uri,
            rows=written.rows,
            failed_rows=written.failed_rows,
            reused_rows=written.reused_rows,
            model_uri=stamp.uri,
            model_version=stamp.version,
        )

    def run(
        self, folder: Path, finished: Mapping[str, Part], *, base: str, tell: Callable[[str], None] | None
    ) -> Scored:
        """Score what is not finished, into `folder`."""
        from pyspark.sql.pandas.types import to_arrow_schema

        schema = to_arrow_schema(self.schema, timezone="UTC")
        writer = PartWriter(self.scorer, base, str(folder), _ipc(schema))
        with spark_failures(f"predictions for {folder.parent} were not written"):
            score = self._direct if self.parts else self._frame
            with progress(folder, len(self.parts) or None, tell):
                found = score(writer, finished)
        return Scored(tuple(found), schema)

    def _frame(self, writer: PartWriter, finished: Mapping[str, Part]) -> list[Part]:
        runs = FrameParts(writer, dict(finished), self.needed)
        with forked_with(self.scorer.imports):
            scored = numbered(self.source, self.needed).mapInArrow(runs, SCHEMA)
        rows = scored.collect()
        return [Part(row.key, row.rows, row.failed) for row in rows]

    def _direct(self, writer: PartWriter, finished: Mapping[str, Part]) -> list[Part]:
        keys = [writer.key(part.identity) for part in self.parts]
        known = dict(finished)
        to_do = {key: part for key, part in zip(keys, self.parts, strict=True) if key not in known}
        if to_do:
            types = _ipc(arrow_types(self.source, self.needed))
            runs = DirectParts(writer, dict(finished), tuple(to_do.values()), types)
            spark = self.source.sparkSession
            tasks = min(len(to_do), TASKS_PER_CORE * spark.sparkContext.defaultParallelism)
            with forked_with(self.scorer.imports):
                scored = spark.range(0, len(to_do), 1, tasks).mapInArrow(runs, SCHEMA)
            asked = [*to_do]
            known |= {asked[row.number]: Part(row.key, row.rows, row.failed) for row in scored.collect()}
        return [known[key] for key in keys]


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


def arrow_types(frame: DataFrame, names: Sequence[str]) -> pa.Schema:
    """Of these columns. Asks the JVM once, however many they are."""
    from pyspark.sql import types as T  # noqa: N812
    from pyspark.sql.pandas.types import to_arrow_schema

    fields = {field.name: field for field in frame.schema}
    return to_arrow_schema(T.StructType([fields[name] for name in names]), timezone="UTC")


def numbered(frame: DataFrame, names: Sequence[str]) -> DataFrame:
    """These columns, called c0, c1, …: `mapInArrow` takes dots and backticks in a name for syntax."""
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
    unread: str | None = None
    """Column that says why a row could not be read."""

    @property
    def imports(self) -> tuple[str, ...]:
        return self.model.imports

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        self.open()
        for batch in batches:
            yield self.score(batch.rename_columns(list(self.names)))[0]

    def open(self) -> None:
        """Load the model, if this process has not."""
        self.model.open()

    def score(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """One batch, and how many rows of it have an error. Never raises for a row."""
        import pyarrow as pa

        kept = [batch.column(name) for name in self.keep]
        unread = batch.column(self.unread).to_pylist() if self.unread is not None else ()
        scored = scored_columns(self.model.open(), batch, self.model_name, self.model_version, unread)
        rows = pa.RecordBatch.from_arrays([*kept, *scored.values()], [*self.keep, *scored])
        return rows, batch.num_rows - scored["error"].null_count


def scored_columns(
    model: RawModel,
    batch: pa.RecordBatch,
    name: str | None,
    version: int | None,
    unread: Sequence[str | None] = (),
) -> dict[str, pa.Array]:
    """What scoring adds to one batch, by name: predictions, then `STAMP_COLUMNS`. Never raises for a row.

    Args:
        unread: Why rows could not be read, by row. Empty: all were.
    """
    outputs, errors = predict_rows(model, batch)
    if unread:
        errors = [why or error for why, error in zip(unread, errors, strict=True)]
    return stamped(model.columns(outputs), errors, name, version)


def stamped(
    predicted: pa.Table, errors: Sequence[str | None], name: str | None, version: int | None
) -> dict[str, pa.Array]:
    """Predictions, null where a row has an error, then `STAMP_COLUMNS`."""
    import pyarrow as pa

    rows = len(errors)
    failed = pa.array([error is not None for error in errors], pa.bool_())
    batches = predicted.combine_chunks().to_batches()
    values = _nulled(batches[0].columns if batches else [], failed)
    stamp = [
        pa.array(errors, pa.string()),
        pa.repeat(pa.scalar(name, pa.string()), rows),
        pa.repeat(pa.scalar(version, pa.int32()), rows),
    ]
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


def kept(columns: Sequence[str], keys: Sequence[str] | None) -> list[str]:
    """Those of a table's columns that are kept beside the predictions.

    Raises:
        SpecError: One is not there, or has the name of a column that scoring adds.
    """
    keep = list(columns if keys is None else dict.fromkeys(keys))
    unknown = [name for name in keep if name not in columns]
    if unknown:
        raise SpecError(f"no key column {unknown[0]!r} in the table", hint=nearest(unknown[0], columns))
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


def _ipc(schema: pa.Schema) -> bytes:
    import pyarrow as pa

    # Without what Spark notes about columns: it is no business of whoever reads the files.
    bare = pa.schema([pa.field(field.name, field.type, field.nullable) for field in schema])
    serialized: bytes = bare.serialize().to_pybytes()
    return serialized
