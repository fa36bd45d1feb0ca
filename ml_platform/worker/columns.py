"""Which columns of a Parquet file are features, label and weight, and how they become arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml_platform.errors import DataError, SpecError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK_ROWS = 1024
"""Rows of a matrix that are filled before the next ones, so that they stay in the processor's cache."""


class Rows(NamedTuple):
    """Rows as arrays. Leading dimensions are the same in all of them.

    Attributes:
        features: Shape (rows, width), float32.
        labels: Shape (rows,): int32 classes, or float32 values.
        weights: Shape (rows,), float32, or None.
    """

    features: NDArray[np.float32]
    labels: NDArray[Any]
    weights: NDArray[np.float32] | None = None

    def part(self, chosen: slice | NDArray[Any]) -> Rows:
        """Some of these rows; a view for a slice."""
        weights = None if self.weights is None else self.weights[chosen]
        return Rows(self.features[chosen], self.labels[chosen], weights)


@dataclass(frozen=True)
class Columns:
    """Names of columns.

    Attributes:
        features: Numeric columns, which become one matrix in this order; None for the column `features` of
            the project's packed data sets: fixed-size binary of little-endian float32.
        label: Whole numbers are classes, floats are values. None: labels are all 0.
        weight: Of a row in the loss.
    """

    features: tuple[str, ...] | None = None
    label: str | None = "label"
    weight: str | None = None

    @property
    def names(self) -> list[str]:
        others = [name for name in (self.label, self.weight) if name is not None]
        return [*(self.features or ("features",)), *others]


class Layout(NamedTuple):
    """What the columns of a file hold: features per row, and the type of labels."""

    width: int
    label_type: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        return 4 * self.width + 8


def layout_of(schema: pa.Schema, columns: Columns, uri: str) -> Layout:
    """Whether a file has these columns, and what they hold.

    Raises:
        SpecError: A column is not there or has a type that cannot serve. It names the column.
    """
    if columns.features is None and "features" not in schema.names:
        raise SpecError(
            f"{uri} is not a packed data set",
            wanted="a column features",
            got=", ".join(schema.names),
            hint="apply features to the table first, or name numeric columns with `features`",
        )
    for name in columns.names:
        if name not in schema.names:
            raise SpecError(f"no column {name!r} in {uri}", hint=nearest(name, schema.names))
    width = _packed_width(schema, uri) if columns.features is None else len(columns.features)
    for name in [*(columns.features or ()), *([columns.weight] if columns.weight else [])]:
        _check_number(schema.field(name), uri)
    return Layout(width, _label_type(schema, columns.label, uri))


def rows_of(table: pa.Table, columns: Columns, layout: Layout, where: str) -> Rows:
    """The rows of a table: views of packed features, a new matrix of several columns.

    Raises:
        DataError: There are nulls, or a label is no int32. It names the column.
    """
    for name in columns.names:
        _check_full(table.column(name), name, where)
    features = (
        _packed(table.column("features"), layout.width)
        if columns.features is None
        else _matrix([table.column(name) for name in columns.features], table.num_rows)
    )
    weights = None if columns.weight is None else _floats(table.column(columns.weight))
    return Rows(features, _labels(table, columns, layout, where), weights)


def _packed_width(schema: pa.Schema, uri: str) -> int:
    import pyarrow as pa

    kind = schema.field("features").type
    if not pa.types.is_fixed_size_binary(kind) or kind.byte_width % 4 or not kind.byte_width:
        raise SpecError(
            f"{uri} is not packed",
            wanted="features as fixed-size binary of float32",
            got=kind,
            hint="name numeric columns with `features`",
        )
    return int(kind.byte_width // 4)


def _check_number(field: pa.Field, uri: str) -> None:
    import pyarrow as pa

    kind = field.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise SpecError(
            f"column {field.name!r} of {uri} is not numeric",
            wanted="whole numbers, floats or booleans",
            got=kind,
            hint="leave it out of `features`, or apply features to the table first",
        )


def _label_type(schema: pa.Schema, label: str | None, uri: str) -> np.dtype[Any]:
    import pyarrow as pa

    if label is None:
        return np.dtype(np.int32)
    field = schema.field(label)
    _check_number(field, uri)
    return np.dtype(np.float32 if pa.types.is_floating(field.type) else np.int32)


def _check_full(column: pa.ChunkedArray, name: str, where: str) -> None:
    if column.null_count:
        raise DataError(
            f"{where} has empty values in column {name!r}",
            wanted="a number in every row",
            got=f"{column.null_count:,} nulls among {len(column):,} rows",
            hint="fill or drop them, or apply features to the table first, which fills them",
        )


def _packed(column: pa.ChunkedArray, width: int) -> NDArray[np.float32]:
    parts = [_view(chunk, width) for chunk in column.chunks]
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros((0, width), np.float32), *parts])


def _view(chunk: pa.Array, width: int) -> NDArray[np.float32]:
    flat = np.frombuffer(chunk.buffers()[1], "<f4", count=len(chunk) * width, offset=chunk.offset * width * 4)
    return flat.reshape(len(chunk), width)


def _matrix(columns: Sequence[pa.ChunkedArray], rows: int) -> NDArray[np.float32]:
    arrays = [_floats(column) for column in columns]
    matrix = np.empty((rows, len(arrays)), np.float32)
    for start in range(0, rows, _BLOCK_ROWS):
        block = matrix[start : start + _BLOCK_ROWS]
        for number, array in enumerate(arrays):
            block[:, number] = array[start : start + _BLOCK_ROWS]
    return matrix


def _floats(column: pa.ChunkedArray) -> NDArray[np.float32]:
    floats: NDArray[np.float32] = column.to_numpy().astype(np.float32, copy=False)
    return floats


def _labels(table: pa.Table, columns: Columns, layout: Layout, where: str) -> NDArray[Any]:
    if columns.label is None:
        return np.zeros(table.num_rows, layout.label_type)
    values = table.column(columns.label).to_numpy()
    if layout.label_type == np.int32 and values.dtype.itemsize > 4 and len(values):
        limits = np.iinfo(np.int32)
        if values.min() < limits.min or values.max() > limits.max:
            raise DataError(
                f"{where} has labels that are no classes",
                wanted="whole numbers of 32 bits",
                got=f"{values.min()} to {values.max()}",
                hint="number the classes from 0, or store values to regress on as floats",
            )
    labels: NDArray[Any] = values.astype(layout.label_type, copy=False)
    return labels
