"""Columns as values: what a number, a time or a category is, whatever Arrow type holds it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_platform.errors import DataError
from ml_platform.features.labels import combined, label_names

MICROS_PER_SECOND = 1e6


def numeric_values(column: pa.Array | pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    """A column as numbers: booleans 0 and 1, dates in days and timestamps in seconds since 1970 (UTC).

    Returns:
        Shape (rows,), float64. Null, NaN and ±inf are NaN.
    Raises:
        DataError: A value is no number; names the column and the value.
    """
    array = _plain(column)
    values = _as_float(array, name).to_numpy(zero_copy_only=False)
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, np.nan)


def time_values(column: pa.Array | pa.ChunkedArray, name: str) -> NDArray[np.datetime64]:
    """A date or timestamp column as moments in UTC; wall clocks without a zone count as UTC.

    Returns:
        Shape (rows,), datetime64[us]. Null is NaT.
    Raises:
        DataError: It holds no times; names the column and its type.
    """
    array = _plain(column)
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), np.datetime64("NaT"), "datetime64[us]")
    if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        raise DataError(f"column {name!r} holds what is no time", wanted="dates or timestamps", got=kind)
    zone = kind.tz if pa.types.is_timestamp(kind) else None
    if pa.types.is_date64(kind):
        array = array.cast(pa.date32())
    micros = array.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    moments: NDArray[np.datetime64] = pc.fill_null(micros, 0).to_numpy().astype("datetime64[us]")
    if array.null_count:
        moments[array.is_null().to_numpy(zero_copy_only=False)] = np.datetime64("NaT")
    return moments


def category_values(column: pa.Array | pa.ChunkedArray, name: str) -> pa.Array:
    """A column as text, nulls kept.

    Raises:
        DataError: The type has no text form; names the column.
    """
    try:
        return label_names(column)
    except DataError as error:
        raise DataError(f"column {name!r} cannot be a category", wanted="text", got=column.type) from error


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    array = combined(column)
    return array.cast(array.type.value_type) if pa.types.is_dictionary(array.type) else array


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
