"""The one function that turns raw rows into features: on Spark executors, in ranks, behind REST.

NumPy and Arrow only, so that what a model was trained on and what it is asked are computed alike.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_platform.errors import DataError, nearest
from ml_platform.features.encoding import codes_of, encodings
from ml_platform.features.hashing import buckets_of, mixed, text_counts
from ml_platform.features.labels import label_names
from ml_platform.features.statistics import signed_log
from ml_platform.features.target import standardised
from ml_platform.features.times import ages_in_days, part_values, waves
from ml_platform.features.values import category_values, numeric_values, time_values
from ml_platform.specs.tables import (
    CategoryFeature,
    FeatureState,
    NumericFeature,
    TargetFeature,
    TextFeature,
    TimeFeature,
)

FLOAT32_MAX = float(np.finfo(np.float32).max)
Block = NDArray[np.float32]
"""Features of one column: a view of the matrix, all zeros. Shape (rows, width of the column)."""


def transform(
    batch: pa.RecordBatch | pa.Table, state: FeatureState, folds: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Features of raw rows; columns that `state` does not name are ignored.

    What each column becomes is said by `NumericFeature`, `TimeFeature`, `CategoryFeature` and `TextFeature`,
    and of two together by `Interaction`. Null, NaN and ±inf count as missing.

    Args:
        folds: Of rows that the state was fitted on: what `TargetFeature` counted of a row's own fold does
            not count for it. Shape (rows,). None: of all other rows.
    Returns:
        Shape (rows, state.width), float32, C-contiguous, finite.
    Raises:
        DataError: A column is missing, is there twice, or holds what its feature cannot take.
    """
    out = np.zeros((batch.num_rows, state.width), np.float32)
    at = 0
    blocks: dict[str, Block] = {}
    for feature in state.features:
        blocks[feature.name] = out[:, at : at + feature.width]
        if isinstance(feature, TargetFeature):
            _fill_target(blocks[feature.name], _column(batch, feature.name), feature, folds)
        else:
            _fill(blocks[feature.name], _column(batch, feature.name), feature)
        at += feature.width
    for each in state.interactions:
        left, right = blocks[each.left], blocks[each.right]
        width = each.buckets or left.shape[1] * right.shape[1]
        _fill_products(out[:, at : at + width], left, right, each.buckets)
        at += width
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


def _column(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
    found = batch.schema.get_all_field_indices(name)
    if len(found) == 1:
        return batch.column(found[0])
    names = batch.schema.names
    if found:
        raise DataError(f"column {name!r} is there {len(found)} times", wanted="once", got=", ".join(names))
    raise DataError(f"column {name!r} is missing", hint=nearest(name, names) if names else None)


def _fill_target(
    block: Block,
    column: pa.Array | pa.ChunkedArray,
    feature: TargetFeature,
    folds: NDArray[np.int64] | None,
) -> None:
    codes = codes_of(category_values(column, feature.name), feature.values)
    block[:] = encodings(feature)[feature.folds if folds is None else folds, codes]


def _fill(
    block: Block,
    column: pa.Array | pa.ChunkedArray,
    feature: NumericFeature | TimeFeature | TextFeature | CategoryFeature,
) -> None:
    if isinstance(feature, NumericFeature):
        _fill_number(block, numeric_values(column, feature.name), feature)
    elif isinstance(feature, TimeFeature):
        _fill_time(block, time_values(column, feature.name), feature)
    elif isinstance(feature, TextFeature):
        _fill_text(block, category_values(column, feature.name), feature)
    else:
        block[np.arange(len(block)), _codes(column, feature)] = 1


def _fill_text(block: Block, values: pa.Array, feature: TextFeature) -> None:
    block[:, :-1] = text_counts(values, feature.buckets, feature.pieces)
    block[:, -1] = values.is_null().to_numpy(zero_copy_only=False)


def _fill_products(block: Block, left: Block, right: Block, buckets: int | None) -> None:
    if buckets is not None:
        pairs = left.argmax(axis=1).astype(np.int64) * right.shape[1] + right.argmax(axis=1)
        block[np.arange(len(block)), mixed(pairs, buckets)] = 1
        return
    wide = right.shape[1]
    with np.errstate(over="ignore"):
        for at in range(left.shape[1]):
            np.multiply(left[:, at : at + 1], right, out=block[:, at * wide : (at + 1) * wide])
    np.clip(block, -FLOAT32_MAX, FLOAT32_MAX, out=block)


def _fill_number(block: Block, values: NDArray[np.float64], feature: NumericFeature) -> None:
    missing = np.isnan(values)
    filled = np.where(missing, feature.fill, values)
    block[:, 0] = _scaled(signed_log(filled) if feature.log else filled, feature.center, feature.scale)
    if feature.missing_flag:
        block[:, 1] = missing


def _fill_time(block: Block, moments: NDArray[np.datetime64], feature: TimeFeature) -> None:
    there = np.flatnonzero(~np.isnat(moments))
    present, at = moments[there], 0
    for part in feature.parts:
        values = part_values(present, part)
        if part == "year":
            block[there, at] = _scaled(values.astype(np.float64), feature.year_center, feature.year_scale)
            at += 1
        else:
            block[there, at : at + 2] = waves(part)[values]
            at += 2
    ages = ages_in_days(present, feature.reference)
    block[there, at] = _scaled(ages, feature.age_center, feature.age_scale)
    if feature.missing_flag:
        block[:, at + 1] = np.isnat(moments)


def _scaled(values: NDArray[np.float64], center: float, scale: float) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        scaled = (values - center) / scale
    # Beyond float32 a value would become infinite.
    return np.clip(scaled, -FLOAT32_MAX, FLOAT32_MAX)


def _codes(column: pa.Array | pa.ChunkedArray, feature: CategoryFeature) -> NDArray[np.int64]:
    values = category_values(column, feature.name)
    unknown = len(feature.values)
    found = pc.index_in(values, value_set=_value_set(feature.values), skip_nulls=True)
    codes: NDArray[np.int64] = pc.fill_null(found, unknown).to_numpy(zero_copy_only=False).astype(np.int64)
    if feature.buckets > 1:
        others = codes == unknown
        codes[others] += buckets_of(values.filter(pa.array(others)), feature.buckets)
    if values.null_count:
        codes[values.is_null().to_numpy(zero_copy_only=False)] = unknown + feature.buckets
    return codes


@lru_cache(maxsize=1024)
def _value_set(values: tuple[str, ...]) -> pa.Array:
    return pa.array(values, pa.string())
