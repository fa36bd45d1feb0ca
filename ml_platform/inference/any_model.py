"""Scoring tables with any model: what it takes and gives is found on an executor, then all rows are scored.

The flow's own process opens no model: it never imports TensorFlow, and runs no code out of a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import SpecError, one_line
from ml_platform.inference.binding import Bound, Needs, bind, tensor
from ml_platform.inference.flavours import FLAVOURS, OpenedModel, check_consent, open_model
from ml_platform.inference.parts import RowsPart
from ml_platform.inference.saved_model_file import SIGNATURE, check_signature
from ml_platform.inference.score import (
    Output,
    ScoringJob,
    Stamp,
    arrow_types,
    kept,
    numbered,
    score_raw,
    stamped,
)
from ml_platform.inference.worker_models import loaded
from ml_platform.resources.spark_daemon import forked_with
from ml_platform.specs.base import Spec
from ml_platform.specs.references import Flavour, ModelFiles, Predictions
from ml_platform.store.fingerprint import named
from ml_platform.store.folders import local_path
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

SAMPLE_ROWS = 64
"""Rows that are tried to see what a model gives."""
PREDICTION = "prediction"
NOT_A_NUMBER = "the model's output is not a number"
LOOKS_KEPT = 64


@cache
def _looked_at() -> dict[tuple[object, ...], Described]:
    """What was found of a model that needs no rows for it, by the model and the columns.

    Behind a function: what it holds at the moment is no part of a key.
    """
    return {}


class Asking(Spec):
    """How a model is to be used, where it does not say so itself."""

    columns: tuple[str, ...] = ()
    """Columns of the table that make its input, in its order. Empty: found by their names or number."""
    signature: str = SIGNATURE
    """Of a SavedModel."""
    trust_pickle: bool = False
    """Whether a model may be opened that is a pickle, which runs whatever code its author put in."""


def predict_table(
    spark: SparkSession,
    model: ModelFiles,
    source: DataFrame,
    *,
    asking: Asking = Asking(),
    keys: Sequence[str] | None = None,
    output: Output,
    parts: Sequence[RowsPart] = (),
    unread: str | None = None,
) -> Predictions:
    """Score a table with any model and write the predictions, in parts that a later scoring takes over.

    Each row gets what the model predicts, or an error; none fails the job. One output is `prediction`,
    several are `prediction_<name>`; tensors are flat arrays.

    Args:
        keys: Columns to keep beside the predictions. None: all. Those that are named are no input.
        parts, unread: As `score_table`.
    Raises:
        SpecError: The model is a pickle and not trusted, it has no such signature, or its columns must be
            named.
        DataError: It cannot be opened, or the table does not have what it takes.
        StoreError: As `score_table`.
    """
    stamp = Stamp(model.uri, model.name, model.version, model.digest)
    if model.flavour == "raw":
        check_own(model.uri, asking)
        folder = local_path(model.path)
        return score_raw(spark, folder, stamp, source, keys=keys, output=output, parts=parts, unread=unread)
    check_asking(model, asking)
    table = source if unread is None else source.drop(named(unread))
    keep = kept(table.columns, keys)
    shipped = ship_files(spark, model, asking.signature)
    able = asking.columns or tuple(name for name in table.columns if keys is None or name not in keep)
    with spark_failures(f"{model.uri} cannot score this table"):
        described = _described(source, shipped, able, asking.columns)
    read = (*described.bound.names, *(() if unread is None else (unread,)))
    needed = (*keep, *(name for name in read if name not in keep))
    scorer = AnyScorer(shipped, described, tuple(needed), tuple(keep), model.name, model.version, unread)
    job = ScoringJob(source, needed, scorer, described.spark_schema(source, keep), tuple(parts))
    return job.write(stamp, output, asking.signature, described.bound.model_dump(), model.entry)


def check_asking(model: ModelFiles, asking: Asking) -> None:
    """Refuse a model of others that cannot be used as it is asked for. Nothing of it is opened.

    Raises:
        SpecError: It runs code and is not trusted, or has no such signature.
        DataError: It cannot be read.
    """
    check_consent(model, trust_pickle=asking.trust_pickle)
    check_signature(model, asking.signature)


def check_own(uri: str, asking: Asking) -> None:
    """Refuse what a model of this platform would not heed: it knows its columns, and has no signatures.

    Raises:
        SpecError: Names the option.
    """
    for option, is_given in (("columns", asking.columns), ("signature", asking.signature != SIGNATURE)):
        if is_given:
            raise SpecError(
                f"{uri} is a model of this platform: it reads the columns that it was trained on",
                got=f"{option}={getattr(asking, option)!r}",
                hint=f"leave out --{option}",
            )


@dataclass(frozen=True)
class ShippedFiles:
    """A model on its way to executors."""

    digest: str
    flavour: Flavour
    entry: str
    signature: str
    files: Any
    """Broadcast of {relative name: bytes}."""

    @property
    def key(self) -> str:
        """What decides how it is opened."""
        return f"{self.digest} {self.flavour} {self.entry} {self.signature}"

    @property
    def imports(self) -> tuple[str, ...]:
        return FLAVOURS[self.flavour].imports

    def open(self) -> OpenedModel:
        """The model, opened if this process has not opened it yet."""
        keeps = self.flavour in ("saved_model", "pyfunc")
        opened: OpenedModel = loaded(self.key, self.files, self._opened, keeps_files=keeps)
        return opened

    def _opened(self, folder: Path) -> OpenedModel:
        return open_model(folder / self.entry, self.flavour, self.signature)


def ship_files(spark: SparkSession, model: ModelFiles, signature: str) -> ShippedFiles:
    """Broadcast a model's file or folder."""
    path = local_path(model.path)
    if path.is_dir():
        found = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
        entry = model.entry
    else:
        found, entry = {path.name: path}, path.name
    content = {name: file.read_bytes() for name, file in found.items()}
    return ShippedFiles(model.digest, model.flavour, entry, signature, spark.sparkContext.broadcast(content))


@dataclass(frozen=True)
class Described:
    """What a model reads of a table, and the types of what it gives."""

    bound: Bound
    outputs: bytes
    """Arrow IPC of the schema of its predictions."""

    def schema(self) -> pa.Schema:
        """Of its predictions."""
        import pyarrow as pa

        return pa.ipc.read_schema(pa.py_buffer(self.outputs))

    def spark_schema(self, source: DataFrame, keep: Sequence[str]) -> Any:
        """Of what is written: kept columns, predictions, stamp."""
        from pyspark.sql import types as T  # noqa: N812
        from pyspark.sql.pandas.types import from_arrow_schema

        stamp = [
            T.StructField("error", T.StringType()),
            T.StructField("model_name", T.StringType()),
            T.StructField("model_version", T.IntegerType()),
        ]
        predicted = from_arrow_schema(self.schema()).fields
        return T.StructType([*(source.schema[name] for name in keep), *predicted, *stamp])


def _described(
    source: DataFrame, shipped: ShippedFiles, able: Sequence[str], asked: Sequence[str]
) -> Described:
    """A worker looks at it, and keeps it. Networks and trees need no rows for that, and no second look."""
    types = arrow_types(source, able)
    describe = _Describe(shipped, tuple(able), tuple(asked), types.serialize().to_pybytes())
    if FLAVOURS[shipped.flavour].takes == "frame":
        sample = numbered(source, able).limit(SAMPLE_ROWS).repartition(1)
        for looked in _look(replace(describe, is_sampled=True), sample):
            return looked
    known = (shipped.key, describe.names, describe.asked, describe.types)
    kept = _looked_at()
    found = kept.get(known)  # held here: other threads let go of what is old
    if found is None:
        (found,) = _look(describe, source.sparkSession.range(0, 1, 1, 1))
        kept[known] = found
        for old in list(kept)[:-LOOKS_KEPT]:
            kept.pop(old, None)
    return found


def _look(describe: _Describe, rows: DataFrame) -> list[Described]:
    """One; none where Spark has no task to run, as there are no rows."""
    with forked_with(describe.model.imports):
        looked = rows.mapInArrow(describe, "bound string, outputs binary")
    return [Described(Bound.model_validate_json(row.bound), bytes(row.outputs)) for row in looked.collect()]


@dataclass(frozen=True)
class _Describe:
    """What one executor runs: open the model, find its columns, and try some rows where it needs them."""

    model: ShippedFiles
    names: tuple[str, ...]
    asked: tuple[str, ...]
    types: bytes
    is_sampled: bool = False
    """Whether rows of the table come in."""

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        model = self.model.open()
        types = pa.ipc.read_schema(pa.py_buffer(self.types))
        bound = bind(model.needs, {field.name: field.type for field in types}, self.asked)
        given = list(batches)  # a worker that leaves some unread is not used again
        rows = [batch.rename_columns(list(self.names)) for batch in given] if self.is_sampled else []
        outputs = tried(model, bound, [*rows, _zeros(types)])
        arrays = [pa.array([bound.model_dump_json()]), pa.array([outputs.serialize().to_pybytes()])]
        yield pa.RecordBatch.from_arrays(arrays, ["bound", "outputs"])


def tried(model: OpenedModel, bound: Bound, rows: Sequence[pa.RecordBatch]) -> pa.Schema:
    """Names and types of what a model gives: a text where it needs rows to tell and takes none of these."""
    import numpy as np
    import pyarrow as pa

    if model.needs.kind == "tensors":
        blank = {
            each.name: np.full((1, *each.shape), "", object)
            if each.dtype == "object"
            else np.zeros((1, *each.shape), each.dtype)
            for each in model.needs.inputs
        }
        return output_columns(model.predict(blank)).schema
    for batch in rows:
        for at in range(batch.num_rows):
            try:
                return predicted(model, bound, batch.slice(at, 1))[0].schema
            except Exception:  # noqa: BLE001  (whatever a row provokes: it is its error when it is scored)
                continue
    return pa.schema([(PREDICTION, pa.string())])


def _zeros(types: pa.Schema) -> pa.RecordBatch:
    """A row of zeros; of nulls where a type has none."""
    import pyarrow as pa

    def zero(kind: pa.DataType) -> pa.Array:
        try:
            return pa.array([0]).cast(kind)
        except pa.ArrowException:
            return pa.nulls(1, kind)

    return pa.RecordBatch.from_arrays([zero(field.type) for field in types], names=types.names)


@dataclass(frozen=True)
class AnyScorer:
    """What runs on executors: record batches in, the kept columns and predictions out."""

    model: ShippedFiles
    described: Described
    names: tuple[str, ...]
    keep: tuple[str, ...]
    model_name: str
    model_version: int | None
    unread: str | None = None
    """Column that says why a row could not be read."""

    @property
    def imports(self) -> tuple[str, ...]:
        return self.model.imports

    def open(self) -> None:
        """Load the model, if this process has not."""
        self.model.open()

    def score(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """One batch, and how many rows of it have an error. Never raises for a row."""
        import pyarrow as pa

        run = partial(predicted, self.model.open(), self.described.bound)
        found, errors = isolated(run, batch, self.described.schema())
        if self.unread is not None:
            errors = [why or e for why, e in zip(batch.column(self.unread).to_pylist(), errors, strict=True)]
        columns = stamped(found, errors, self.model_name, self.model_version)
        kept = [batch.column(name) for name in self.keep]
        rows = pa.RecordBatch.from_arrays([*kept, *columns.values()], [*self.keep, *columns])
        return rows, batch.num_rows - columns["error"].null_count


Errors = list[str | None]


def isolated(
    run: Callable[[pa.RecordBatch], tuple[pa.Table, Errors]], batch: pa.RecordBatch, schema: pa.Schema
) -> tuple[pa.Table, Errors]:
    """Predictions of a batch, and an error for each row that has none.

    A batch that fails is halved until the bad rows stand alone, so that a few of them cost little.
    """
    import pyarrow as pa

    try:
        found, errors = run(batch)
        return found.select(schema.names).cast(schema), errors
    except Exception as error:  # noqa: BLE001  (whatever a row provokes is that row's error)
        if batch.num_rows == 1:
            return pa.table([pa.nulls(1, field.type) for field in schema], schema=schema), [one_line(error)]
        half = batch.num_rows // 2
        parts = [isolated(run, piece, schema) for piece in (batch.slice(0, half), batch.slice(half))]
        return pa.concat_tables([part[0] for part in parts]), [text for part in parts for text in part[1]]


def predicted(model: OpenedModel, bound: Bound, batch: pa.RecordBatch) -> tuple[pa.Table, Errors]:
    """What the model gives for some rows, and what is wrong with single ones. May raise for a row."""
    errors: Errors = [None] * batch.num_rows
    if model.needs.kind == "frame":
        (_, names), *_ = bound.columns
        given: Any = batch.select(list(names)).to_pandas()
    else:
        given = _arrays(model.needs, bound, batch, errors)
    outputs = model.predict(given)
    for values in outputs.values():
        _note_what_is_no_number(values, errors)
    return output_columns(outputs), errors


def _arrays(needs: Needs, bound: Bound, batch: pa.RecordBatch, errors: Errors) -> dict[str, NDArray[Any]]:
    """Arrays by input; texts are put where a row has no values."""
    found = {}
    for each, (_, names) in zip(needs.inputs, bound.columns, strict=True):
        found[each.name], wrong = tensor(batch, names, each, missing=needs.missing)
        for row, text in enumerate(wrong or ()):
            errors[row] = errors[row] or text
    return found


def _note_what_is_no_number(values: Any, errors: Errors) -> None:
    import numpy as np

    array = np.asarray(values)
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    for row in np.flatnonzero(~finite):
        errors[row] = errors[row] or NOT_A_NUMBER


def output_columns(outputs: Mapping[str, Any]) -> pa.Table:
    """Outputs as columns: numbers, texts, or flat arrays."""
    import pyarrow as pa

    names = [PREDICTION] if len(outputs) == 1 else [_named(name) for name in outputs]
    return pa.table([_column(values) for values in outputs.values()], names=names)


def _named(name: str) -> str:
    return name if name.startswith(PREDICTION) else f"{PREDICTION}_{name}"


def _column(values: Any) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    array = np.asarray(values)
    rows = len(array)
    flat = array.reshape(rows, -1)
    if flat.dtype.kind in "SO":
        flat = np.array([_text(value) for value in flat.ravel()], dtype=object).reshape(flat.shape)
    if flat.shape[1] == 1:
        return pa.array(flat[:, 0])
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * flat.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(flat.ravel()))


def _text(value: Any) -> Any:
    """Plain numbers and texts as they are; anything else in words."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, default=str)
