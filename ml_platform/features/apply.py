"""The one function that turns raw rows into features: on Spark executors, in ranks, behind REST.

NumPy and Arrow only, so that what a model was trained on and what it is asked are computed alike.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_platform.errors import DataError, nearest
from ml_platform.features.labels import combined, label_names
from ml_platform.features.target import standardised
from ml_platform.specs.tables import CategoryFeature, FeatureState, NumericFeature

FLOAT32_MAX = float(np.finfo(np.float32).max)
MICROS_PER_SECOND = 1e6


def transform(batch: pa.RecordBatch | pa.Table, state: FeatureState) -> NDArray[np.float32]:
    """Features of raw rows; columns that `state` does not name are ignored.

    A numeric column gives `(x or fill - center) / scale`, where null, NaN and ±inf count as missing. A
    category gives one column per known value, then one for unknown values, then one for missing ones.

    Returns:
        Shape (rows, state.width), float32, C-contiguous, finite.
    Raises:
        DataError: A column is missing, is there twice, or holds what its feature cannot take.
    """
    out = np.zeros((batch.num_rows, state.width), np.float32)
    for at, numeric in enumerate(state.numeric):
        out[:, at] = _scaled(numeric_values(_column(batch, numeric.name), numeric.name), numeric)
    at = len(state.numeric)
    rows = np.arange(batch.num_rows)
    for category in state.categories:
        out[rows, at + _codes(_column(batch, category.name), category)] = 1
        at += len(category.values) + 2
    return out


def encode_labels(
    column: pa.Array | pa.ChunkedArray, state: FeatureState
) -> NDArray[np.int32] | NDArray[np.float32]:
    """Labels as models learn them.

    Returns:
        Shape (rows,). int32: index in `state.classes`, -1 where it is null or none of them. Of a label that
        is a number float32: standardised, NaN where it is null.
    Raises:
        DataError: The state wants numbers and these are none.
    """
    if state.target is not None:
        return standardised(column, state.target)
    known = pa.array(state.classes, pa.string())
    found = pc.index_in(label_names(column), value_set=known, skip_nulls=True)
    codes: NDArray[np.int32] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False)
    return codes.astype(np.int32, copy=False)


def numeric_values(column: pa.Array | pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    """A column as numbers: booleans 0 and 1, dates in days and timestamps in seconds since 1970 (UTC).

    Returns:
        Shape (rows,), float64. Null, NaN and ±inf are NaN.
    Raises:
        DataError: A value is no number; names the column and the value.
    """
    array = combined(column)
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    values = _as_float(array, name).to_numpy(zero_copy_only=False)
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, np.nan)


def category_values(column: pa.Array | pa.ChunkedArray, name: str) -> pa.Array:
    """A column as text, nulls kept.

    Raises:
        DataError: The type has no text form; names the column.
    """
    try:
        return label_names(column)
    except DataError as error:
        raise DataError(f"column {name!r} cannot be a category", wanted="text", got=column.type) from error


def _column(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
    found = batch.schema.get_all_field_indices(name)
    if len(found) == 1:
        return batch.column(found[0])
    names = batch.schema.names
    if found:
        raise DataError(f"column {name!r} is there {len(found)} times", wanted="once", got=", ".join(names))
    raise DataError(f"column {name!r} is missing", hint=nearest(name, names) if names else None)


def _scaled(values: NDArray[np.float64], feature: NumericFeature) -> NDArray[np.float64]:
    filled = np.where(np.isnan(values), feature.fill, values)
    with np.errstate(over="ignore"):
        scaled = (filled - feature.center) / feature.scale
    # Beyond float32 a value would become infinite.
    return np.clip(scaled, -FLOAT32_MAX, FLOAT32_MAX)


def _codes(column: pa.Array | pa.ChunkedArray, feature: CategoryFeature) -> NDArray[np.int64]:
    values = category_values(column, feature.name)
    unknown = len(feature.values)
    found = pc.index_in(values, value_set=pa.array(feature.values, pa.string()), skip_nulls=True)
    codes: NDArray[np.int64] = pc.fill_null(found, unknown).to_numpy(zero_copy_only=False).astype(np.int64)
    if values.null_count:
        codes[values.is_null().to_numpy(zero_copy_only=False)] = unknown + 1
    return codes


def _as_float(array: pa.Array, name: str) -> pa.Array:
    kind = array.type
    if pa.types.is_timestamp(kind):
        micros = array.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64())
        return pc.divide(micros.cast(pa.float64(), safe=False), MICROS_PER_SECOND)
    if pa.types.is_date(kind):
        return array.cast(pa.date32()).cast(pa.int32()).cast(pa.float64())
    try:
        return array.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"column {name!r} holds what is no number",
            wanted="numbers",
            got=_example(array),
            evidence=str(error),
        ) from error


def _example(array: pa.Array) -> str:
    """The first value that is no number, in words."""
    if not _is_text(array.type):
        return f"values of type {array.type}"
    for value in array.drop_null().to_pylist():
        try:
            pa.scalar(value).cast(pa.float64())
        except pa.ArrowInvalid:
            return f"{value!r} (text)"
    return f"values of type {array.type}"


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
