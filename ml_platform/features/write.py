"""Features of a whole part: the one `transform`, on Spark executors, into a packed data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_platform.features.apply import encode_labels, transform
from ml_platform.features.fit_encoding import fold_of
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import FeatureState
from ml_platform.store.datasets import spark_frame, write_dataset
from ml_platform.store.fingerprint import mapped, named
from ml_platform.store.sql import quoted

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LABEL = "label"
FEATURES = "features"


def apply_features(spark: SparkSession, part: Dataset, state: FeatureState) -> Dataset:
    """Features and label codes of every row; in the part that the state was fitted on, out of its own fold.

    Returns:
        A data set with `label` (int32: index in `state.classes`, -1 for another class; or float32: the
        standardised number) and `features` (packed, `state.width` values).
    Raises:
        DataError: A column is missing, or holds what its feature cannot take.
    """
    names = (*state.columns, state.label)
    frame = spark_frame(spark, part)
    raw = frame.selectExpr(*map(quoted, names))
    if state.targets and part.fingerprint == state.fitted_on:
        raw = frame.select(*map(named, names), fold_of(frame, state.targets[0].folds))
    apply = partial(_apply_partition, names=names, state=state.model_dump_json())
    kind = "int" if state.target is None else "float"
    frame = mapped(raw, apply, f"{LABEL} {kind}, {FEATURES} binary")
    name = f"{part.uri.split('/')[-2]}-features"
    return write_dataset(frame, name=name, label=LABEL, packed={FEATURES: state.width})


def _apply_partition(
    batches: Iterator[pa.RecordBatch], *, names: Sequence[str], state: str
) -> Iterator[pa.RecordBatch]:
    fitted = FeatureState.model_validate_json(state)
    for batch in batches:
        folds = batch.column(len(names)).to_numpy() if batch.num_columns > len(names) else None
        raw = pa.RecordBatch.from_arrays(batch.columns[: len(names)], list(names))
        labels = encode_labels(raw.column(len(names) - 1), fitted)
        columns = [pa.array(labels), packed_array(transform(raw, fitted, folds)).cast(pa.binary())]
        yield pa.RecordBatch.from_arrays(columns, [LABEL, FEATURES])


def packed_array(matrix: NDArray[np.float32]) -> pa.Array:
    """Rows of a C-contiguous float32 matrix as fixed-size binary values, without a copy.

    >>> packed_array(np.zeros((2, 3), np.float32)).type
    FixedSizeBinaryType(fixed_size_binary[12])
    """
    rows, width = matrix.shape
    little = np.ascontiguousarray(matrix, "<f4")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(4 * width), rows, [None, pa.py_buffer(little)])
