"""Columns on both sides of a model: raw input as its contract types it, and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ml_platform.errors import DataError, nearest
from ml_platform.specs.contracts import Column, Contract

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

PREDICTION_COLUMNS = ("prediction", "probability", "probabilities")


def arrow_type(column: Column) -> pa.DataType | None:
    """The Arrow type of a raw column; None where the type alone does not settle it (decimal)."""
    import pyarrow as pa

    types = {
        "integer": pa.int64(),
        "float": pa.float64(),
        "boolean": pa.bool_(),
        "string": pa.string(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    return types.get(column.type)


def conform(table: pa.Table | pa.RecordBatch, contract: Contract) -> pa.Table:
    """The columns of `contract` out of `table`, in its order and with its types.

    Values are cast only where nothing is lost: 3.0 serves as the integer 3, 3.5 does not. Text is never
    read as a number.

    Raises:
        DataError: A column is missing or does not hold its type.
    """
    import pyarrow as pa

    _check_there(contract, table.schema.names)
    arrays = [_cast(table.column(column.name), column) for column in contract.columns]
    return pa.table(arrays, names=list(contract.names))


def from_pandas(frame: pd.DataFrame, contract: Contract) -> pa.Table:
    """pandas rows as Arrow columns of the contract's types. NaN and None are nulls; others are ignored.

    Raises:
        DataError: A column is missing or does not hold its type.
    """
    import pyarrow as pa

    _check_there(contract, [str(name) for name in frame.columns])
    arrays = []
    for name in contract.names:
        try:
            arrays.append(pa.array(frame[name], from_pandas=True))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"column {name!r} mixes types", wanted=contract[name].type, got=error) from error
    return conform(pa.table(arrays, names=list(contract.names)), contract)


def prediction_columns(probabilities: NDArray[np.float32], classes: Sequence[str]) -> pa.Table:
    """Predictions as columns: class name, its probability, and a map of all classes to theirs.

    Args:
        probabilities: Shape (rows, classes).
    """
    import numpy as np
    import pyarrow as pa

    rows, width = probabilities.shape
    best = probabilities.argmax(axis=1) if rows else np.empty(0, np.int64)
    names = pa.array(classes, pa.string())
    values = probabilities.astype(np.float64)
    maps = pa.MapArray.from_arrays(
        pa.array(np.arange(rows + 1, dtype=np.int32) * width),
        names.take(pa.array(np.tile(np.arange(width), rows))),
        pa.array(values.ravel()),
    )
    arrays = [names.take(pa.array(best)), pa.array(values[np.arange(rows), best]), maps]
    return pa.table(arrays, names=list(PREDICTION_COLUMNS))


def number_columns(values: NDArray[np.float64]) -> pa.Table:
    """Predicted numbers as a column.

    Args:
        values: Shape (rows, 1).
    """
    import numpy as np
    import pyarrow as pa

    return pa.table([pa.array(values[:, 0].astype(np.float64))], names=[PREDICTION_COLUMNS[0]])


def _check_there(contract: Contract, names: Sequence[str]) -> None:
    missing = [name for name in contract.names if name not in names]
    if missing:
        raise DataError(
            f"column {missing[0]!r} is missing from the rows to predict",
            wanted=", ".join(contract.names),
            got=", ".join(names),
            hint=nearest(missing[0], names),
        )


def _cast(values: pa.ChunkedArray | pa.Array, column: Column) -> pa.ChunkedArray | pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = arrow_type(column)
    if wanted is None or values.type == wanted:
        return values
    text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if text and not pa.types.is_string(wanted):
        raise _retyped(column, values, "text")
    if pa.types.is_floating(values.type) and not pa.types.is_floating(wanted):
        # pandas and what it writes have no other hole in whole numbers than NaN.
        values = pc.if_else(pc.is_finite(values), values, None)
    try:
        # A float holds any number closely enough; only where it must become an integer could it lose.
        return values.cast(wanted, safe=not pa.types.is_floating(wanted))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _retyped(column, values, str(error)) from error


def _retyped(column: Column, values: pa.ChunkedArray | pa.Array, got: str) -> DataError:
    return DataError(
        f"column {column.name!r} is not {column.type}", wanted=column.type, got=f"{values.type}: {got}"
    )
