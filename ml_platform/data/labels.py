"""Which rows have no label that anybody can learn: told in Spark, and of Arrow batches alike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType

    from ml_platform.store.pieces import Pieces


def judged(frame: DataFrame, reason: str, label: str) -> DataFrame:
    """Say in the column of reasons that such rows are bad, too."""
    import pyspark.sql.functions as sf

    from ml_platform.store.fingerprint import named

    column, kind = named(label), frame.schema[label].dataType.typeName()
    is_missing = column.isNull()
    if kind in {"float", "double"}:
        is_missing = is_missing | sf.isnan(column)
    elif kind == "string":
        is_missing = is_missing | (sf.trim(column) == "")
    why = sf.when(is_missing, f"label {label!r} is missing")
    if kind in {"float", "double"}:
        why = why.when(sf.abs(column) == math.inf, f"label {label!r} is infinite")
    return frame.withColumn(reason, sf.coalesce(named(reason), why))


class Labelled:
    """Pieces of a table without the rows that have no label to learn from: those are set aside."""

    def __init__(self, pieces: Pieces, label: str) -> None:
        self._pieces = pieces
        self._at = pieces.schema.names.index(label)

    @property
    def schema(self) -> StructType:
        return self._pieces.schema

    @property
    def count(self) -> int:
        return self._pieces.count

    def rows(self, piece: int) -> Iterator[tuple[pa.RecordBatch, int]]:
        for batch, others in self._pieces.rows(piece):
            good = _can_be_learnt(batch.column(self._at))
            bad = len(good) - good.true_count
            yield batch.filter(good) if bad else batch, others + bad


def _can_be_learnt(labels: pa.Array) -> pa.BooleanArray:
    if pa.types.is_floating(labels.type):
        return pc.fill_null(pc.is_finite(labels), False)
    if pa.types.is_string(labels.type):
        return pc.fill_null(pc.not_equal(pc.utf8_trim(labels, " "), ""), False)
    return labels.is_valid()
