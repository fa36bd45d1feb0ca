"""From columns of a table to what a model takes: which columns, and their values as arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ml_platform.errors import DataError, SpecError, nearest
from ml_platform.specs.base import Spec

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

FLOAT32_BYTES = 4


class Input(Spec):
    """One thing that a model takes."""

    name: str
    shape: tuple[int, ...] = Field((), description="Of one row. Empty: a number.")
    dtype: str = Field("float32", description="NumPy's name of the type.")

    @property
    def width(self) -> int:
        return math.prod(self.shape)


class Needs(Spec):
    """What a model takes."""

    kind: Literal["tensors", "frame"] = Field(description="Arrays by name, or a pandas table.")
    inputs: tuple[Input, ...] = Field((), description="Arrays that it takes.")
    columns: tuple[str, ...] = Field((), description="Columns by name, where the model names them.")
    width: int | None = Field(None, description="How many columns, where it names none.")
    missing: bool = Field(False, description="A null among columns of numbers is a missing value, NaN.")


class Bound(Spec):
    """Columns of a table, by the input that they make."""

    columns: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are read."""
        return tuple(dict.fromkeys(name for _, names in self.columns for name in names))


def bind(needs: Needs, types: Mapping[str, pa.DataType], asked: Sequence[str]) -> Bound:
    """Which columns of a table make which input.

    A column that is called like an input makes it. Else a model with one input takes the columns that were
    asked for, or the table's one column of vectors, or all of its columns when it has just as many.

    Args:
        types: Columns of the table that may be read.
        asked: Columns that the caller names, in the order of the model's input.
    Raises:
        SpecError: The caller must name the columns, or names one that is not there.
        DataError: A column is missing, or is of a type that makes no such input.
    """
    for name in asked:
        if name not in types:
            raise SpecError(f"no column {name!r} in the table", hint=nearest(name, types))
    bound = _frame(needs, types, asked) if needs.kind == "frame" else _tensors(needs, types, asked)
    if needs.kind == "tensors":
        for each, (_, names) in zip(needs.inputs, bound.columns, strict=True):
            _check_types(each, {name: types[name] for name in names})
    return bound


def _frame(needs: Needs, types: Mapping[str, pa.DataType], asked: Sequence[str]) -> Bound:
    names = tuple(asked) or needs.columns
    if not names and needs.width == len(types):
        names = tuple(types)
    if not names:
        raise SpecError(
            "the model does not say which columns it reads: it has no signature",
            wanted="their names, in its order" + (f": {needs.width} of them" if needs.width else ""),
            got=f"a table of {len(types)}: {', '.join(list(types)[:20])}",
            hint="name them: columns=(…), or --columns a b c; or log the model with a signature",
        )
    _check_there(names, types)
    return Bound(columns=(("", names),))


def _tensors(needs: Needs, types: Mapping[str, pa.DataType], asked: Sequence[str]) -> Bound:
    if not asked and all(each.name in types for each in needs.inputs):
        return Bound(columns=tuple((each.name, (each.name,)) for each in needs.inputs))
    if len(needs.inputs) > 1:
        names = tuple(each.name for each in needs.inputs)
        _check_there(names, types)
        raise SpecError("a model of several inputs reads the columns of their names", wanted=", ".join(names))
    (only,) = needs.inputs
    return Bound(columns=((only.name, tuple(asked) or _of_one(only, needs.columns, types)),))


def _of_one(only: Input, named: Sequence[str], types: Mapping[str, pa.DataType]) -> tuple[str, ...]:
    """Columns for a model's one input."""
    if named:
        _check_there(named, types)
        return tuple(named)
    vectors = [name for name, kind in types.items() if _is_vector(kind)]
    if len(vectors) == 1:
        return (vectors[0],)
    if len(types) == only.width:
        return tuple(types)
    raise SpecError(
        f"it is not clear which columns make the model's input {only.name!r} of shape {only.shape}",
        wanted=f"a column {only.name!r}, one column of vectors, or {only.width} columns",
        got=f"{len(types)} columns: {', '.join(list(types)[:20])}",
        hint="name them: columns=(…), or --columns a b c; keys are not among them",
    )


def _check_there(names: Sequence[str], types: Mapping[str, pa.DataType]) -> None:
    missing = [name for name in names if name not in types]
    if missing:
        raise DataError(
            f"the table lacks {len(missing)} of {len(names)} columns that the model reads",
            wanted=", ".join(missing[:20]),
            got=", ".join(list(types)[:20]),
            hint=nearest(missing[0], types),
        )


def _check_types(each: Input, types: Mapping[str, pa.DataType]) -> None:
    import pyarrow.types as t

    if each.dtype in ("object", "str"):
        return
    for name, kind in types.items():
        if not (_is_vector(kind) or t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind)):
            raise DataError(
                f"column {name!r} makes no numbers for the model's input {each.name!r}",
                wanted="numbers, or vectors of them",
                got=str(kind),
                hint="cast it, or name other columns; one text in a CSV's column makes all of it text",
            )
    vectors = [name for name, kind in types.items() if _is_vector(kind)]
    if vectors and len(types) > 1:
        raise DataError(f"column {vectors[0]!r} of vectors cannot be joined with others to one input")
    if not vectors and len(types) != each.width:
        raise DataError(
            f"the columns do not make the model's input {each.name!r}",
            wanted=f"{each.width} numbers a row, for shape {each.shape}",
            got=f"{len(types)} columns",
        )
    if vectors and (width := fixed_width(types[vectors[0]])) not in (None, each.width):
        raise DataError(
            f"column {vectors[0]!r} is of another shape than the model's input {each.name!r}",
            wanted=f"{each.width} values a row, for shape {each.shape}",
            got=f"{width} values a row",
        )


def _is_vector(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind) or _is_packed(kind))


def _is_packed(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    return bool(t.is_binary(kind) or t.is_fixed_size_binary(kind))


def fixed_width(kind: pa.DataType) -> int | None:
    """Values a row, where the type says so."""
    import pyarrow.types as t

    if t.is_fixed_size_list(kind):
        return int(kind.list_size)
    return int(kind.byte_width // FLOAT32_BYTES) if t.is_fixed_size_binary(kind) else None


def tensor(
    batch: pa.RecordBatch, names: Sequence[str], each: Input, *, missing: bool = False
) -> tuple[NDArray[np.generic], list[str | None] | None]:
    """The values of an input for every row, and what is wrong with rows that have none.

    Args:
        missing: A null among columns of numbers is NaN, and nothing is wrong with it.
    Returns:
        Shape (rows, *each.shape): zeros in a row that has an error; and a text or None per row, or None when
        no row is wrong.
    """
    import numpy as np

    rows = batch.num_rows
    columns = [batch.column(name) for name in names]
    if each.dtype in ("object", "str"):
        values = np.array(columns[0].to_pylist(), dtype=object)
        return values.reshape(rows, *each.shape), _null_texts(columns, names)
    if _is_vector(columns[0].type):
        flat, errors = _vectors(columns[0], names[0], each)
        return flat.reshape(rows, *each.shape), errors
    out = np.empty((rows, len(columns)), each.dtype)
    for at, column in enumerate(columns):
        whole = column if missing or not column.null_count else column.fill_null(0)
        out[:, at] = whole.to_numpy(zero_copy_only=False)
    return out.reshape(rows, *each.shape), None if missing else _null_texts(columns, names)


def _vectors(column: pa.Array, name: str, each: Input) -> tuple[NDArray[np.generic], list[str | None] | None]:
    import numpy as np

    values, lengths = _flat(column)
    rows, width = len(column), each.width
    if column.null_count == 0 and bool((lengths == width).all()) and values.null_count == 0:
        return values.to_numpy(zero_copy_only=False).astype(each.dtype, copy=False), None
    out = np.zeros((rows, width), each.dtype)
    errors: list[str | None] = [None] * rows
    for row in range(rows):
        scalar = column[row]
        given = None if not scalar.is_valid else _flat(column.slice(row, 1))[0]
        if given is None:
            errors[row] = f"column {name!r} is null"
        elif len(given) != width:
            errors[row] = f"column {name!r} has {len(given)} values, not the {width} of shape {each.shape}"
        elif given.null_count:
            errors[row] = f"column {name!r} has a null among its values"
        else:
            out[row] = given.to_numpy(zero_copy_only=False)
    return out, errors


def _flat(column: pa.Array) -> tuple[pa.Array, NDArray[np.generic]]:
    """All values of a column of vectors, without those of null rows, and how many each row has."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if not _is_packed(column.type):
        return column.flatten(), pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    # Whatever lies there, aligned or not: bytes of the rows, one after another.
    content = column.drop_null()
    if pa.types.is_fixed_size_binary(content.type):
        content = content.cast(pa.binary())
    offsets = np.frombuffer(content.buffers()[1], np.int32)[
        content.offset : content.offset + len(content) + 1
    ]
    data = content.buffers()[2]
    start, end = (int(offsets[0]), int(offsets[-1])) if len(content) else (0, 0)
    end -= (end - start) % FLOAT32_BYTES
    values = np.frombuffer(data, np.uint8)[start:end] if data is not None else np.empty(0, np.uint8)
    lengths = pc.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    whole = np.where(lengths % FLOAT32_BYTES == 0, lengths // FLOAT32_BYTES, -1)
    return pa.array(np.frombuffer(values.tobytes(), "<f4")), whole


def _null_texts(columns: Sequence[pa.Array], names: Sequence[str]) -> list[str | None] | None:
    """A text for each row with a null in it; None when there is no such row."""
    if not any(column.null_count for column in columns):
        return None
    errors: list[str | None] = [None] * len(columns[0])
    for column, name in zip(columns, names, strict=True):
        if column.null_count:
            for row in column.is_null().to_numpy(zero_copy_only=False).nonzero()[0]:
                errors[row] = errors[row] or f"column {name!r} is null"
    return errors
