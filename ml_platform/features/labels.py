"""Class names: the text form of a label, the same wherever labels are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_platform.errors import DataError

NO = {"no", "nein", "non", "nee", "nej", "n", "f", "false", "negative", "negativ"}


def label_names(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The class name of each label: 3 and 3.0 → '3', true → 'true', null and NaN → null.

    Raises:
        DataError: The type has no text form.
    """
    column = combined(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        return _whole_where_possible(column.cast(pa.float64()))
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError("labels of this type have no names", got=column.type) from error


def label_values(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """A label as numbers. Shape (rows,); null is NaN.

    Raises:
        DataError: The type is no number.
    """
    column = combined(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise DataError("the label is no number", wanted="integers, floats or decimals", got=kind)
    values: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def has_fractions(column: pa.Array | pa.ChunkedArray) -> bool:
    """Whether a numeric label has values between whole numbers."""
    column = combined(column)
    if not (pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        return False
    values = pc.drop_null(column.cast(pa.float64()))
    return bool(pc.any(pc.not_equal(values, pc.floor(values))).as_py())


def name_counts(names: Iterable[pa.Array]) -> Counter[str]:
    """How often each name occurs; nulls are left out."""
    total: Counter[str] = Counter()
    for each in names:
        counted = pc.value_counts(pc.drop_null(each))
        total.update({pair["values"]: pair["counts"] for pair in counted.to_pylist()})
    return total


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order of outputs: by value when all are whole numbers, else by text.

    Of two the second is the positive one, so that a word for "no" comes first.

    >>> natural_order({"10", "9", "0"}), natural_order({"Ja", "Nein"})
    (('0', '9', '10'), ('Nein', 'Ja'))
    """
    listed = sorted(names)
    if all(name.removeprefix("-").isdecimal() for name in listed):
        return tuple(sorted(listed, key=int))
    if len(listed) == 2 and listed[1].casefold() in NO and listed[0].casefold() not in NO:
        listed.reverse()
    return tuple(listed)


def combined(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array, whatever chunks there are."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    whole = column.combine_chunks()
    # Dictionaries that differ, or none at all, leave chunks behind.
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def _whole_where_possible(values: pa.Array) -> pa.Array:
    whole = pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), 2.0**63))
    integers = pc.if_else(whole, values, None).cast(pa.int64()).cast(pa.string())
    named = pc.coalesce(integers, values.cast(pa.string()))
    return pc.if_else(pc.is_nan(values), None, named)
