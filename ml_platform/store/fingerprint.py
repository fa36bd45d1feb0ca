"""Fingerprint of a table: independent of row order, of files and of column order.

Each row is hashed over, per column in name order, a null flag *and* the value: Spark's `xxhash64` alone
skips nulls and flattens nesting, so that (1, null) and (null, 1) would be equal. Nested values enter as
canonical JSON. Row hashes under two seeds are folded by bit_xor and by an exact sum, which commute;
the sum also counts duplicates, which bit_xor cancels.

-0.0 equals 0.0 and every NaN equals every other, as in Spark's own joins and groups.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyspark.sql.functions as sf
from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql.types import (
    ArrayType,
    DataType,
    DoubleType,
    FloatType,
    MapType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from ml_platform.store.sql import literal, quoted

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
SEEDS = (0x5EED, 0xCAFE)
HALF = 1 << 31
"""Row hashes are summed in halves of 32 bits around 0, which fit into 64 for 4 billion equal rows: to add up
decimals of 20 digits took Spark 0.2 s of a processor more per million rows."""
ROWS = "rows"
WIDE = 100
"""Columns up to which they travel as they are."""
ROW = "__row"
PACKED = f"struct(*) AS {ROW}"


def named(name: str) -> Column:
    """The column of this name, whatever dots, spaces or backticks are in it."""
    return sf.col(quoted(name))


def mapped(
    frame: DataFrame, function: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]], schema: Any
) -> DataFrame:
    """`frame.mapInArrow`, with columns named by position: it cannot resolve names with dots or backticks.

    Of a wide frame it looks up each column in the plan, a time that grows with the square of their number:
    there the columns travel as one.
    """
    if frame.columns == [ROW]:
        return frame.mapInArrow(_Unpacked(function), schema)
    if len(frame.columns) > WIDE:
        return frame.selectExpr(PACKED).mapInArrow(_Unpacked(function), schema)
    return frame.toDF(*[f"c{at}" for at in range(len(frame.columns))]).mapInArrow(function, schema)


def observed(frame: DataFrame, observation: Observation) -> DataFrame:
    """The frame, whose fingerprint is observed as it is read; to be given to `mapped`.

    Of a wide frame every further operator costs an analysis of all columns: they are packed at once.
    """
    hashes = hash_columns(frame.schema)
    if len(frame.columns) <= WIDE:
        return frame.withColumns(hashes).observe(observation, *aggregates()).drop(*hashes)
    packed = [sf.expr(PACKED), *(hashed.alias(name) for name, hashed in hashes.items())]
    return frame.select(*packed).observe(observation, *aggregates()).select(ROW)


class _Unpacked:
    """The function on executors, given the columns that came as one."""

    def __init__(self, function: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]) -> None:
        self._function = function

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        return self._function(pa.RecordBatch.from_struct_array(batch.column(0)) for batch in batches)


def row_hash(schema: StructType, seed: int | str) -> Column:
    """64-bit hash of a whole row. Equal rows have equal hashes, whatever the order of their columns."""
    return _hashed(sorted(schema.fields, key=_by_name), seed)


def hash_columns(schema: StructType) -> dict[str, Column]:
    """Hashes of each row by name, to be added as columns: so each is computed once, for both folds."""
    return {f"__row_hash_{seed}": row_hash(schema, seed) for seed in SEEDS}


def aggregates() -> list[Column]:
    """What a fingerprint is made of, over a frame with `hash_columns`; named as `digest` wants them."""
    columns = [sf.count(sf.lit(1)).alias(ROWS)]
    for seed in SEEDS:
        hashed = f"__row_hash_{seed}"
        columns.append(sf.expr(f"bit_xor({hashed}) AS xor_{seed}"))
        columns.append(sf.expr(f"sum(shiftright({hashed}, 32)) AS high_{seed}"))
        columns.append(sf.expr(f"sum(({hashed} & {2 * HALF - 1}) - {HALF}) AS low_{seed}"))
    return columns


def digest(schema: StructType, observed: Mapping[str, Any]) -> str:
    """The fingerprint, as 64 hexadecimal digits.

    Args:
        observed: Values of `aggregates()` by name. Those of an empty table are null.
    """
    folded = [str(each) for seed in SEEDS for each in (observed[f"xor_{seed}"] or 0, _sum(observed, seed))]
    types = [[field.name, field.dataType.simpleString()] for field in sorted(schema.fields, key=_by_name)]
    content = json.dumps([VERSION, types, observed[ROWS], folded], separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def _sum(observed: Mapping[str, Any], seed: int) -> int:
    """Of all row hashes, exactly."""
    low = (observed[f"low_{seed}"] or 0) + HALF * observed[ROWS]
    return int(2 * HALF * (observed[f"high_{seed}"] or 0) + low)


def key_hash(fields: Iterable[StructField], salt: str) -> Column:
    """64-bit hash of key columns that survives a wider type.

    A whole-number column becomes a float column when one fraction is appended to its file, and a date
    column a timestamp: the hash of the old rows stays.
    """
    return _hashed(sorted(fields, key=_by_name), salt, widen=True)


def _by_name(field: StructField) -> str:
    return field.name


def _hashed(fields: Sequence[StructField], seed: int | str, *, widen: bool = False) -> Column:
    """Hash of a seed and, per field, a null flag and the value."""
    if any(isinstance(field.dataType, ArrayType | StructType | MapType) for field in fields):
        parts = [part for field in fields for part in _flag_and_value(field, widen=widen)]
        return sf.xxhash64(sf.lit(seed), *parts)
    # One text is one call into the JVM; a table may have thousands of columns.
    texts = [f"{quoted(field.name)} IS NULL, {_value(field, widen=widen)}" for field in fields]
    return sf.expr(f"xxhash64({', '.join([literal(seed), *texts])})")


def _flag_and_value(field: StructField, *, widen: bool) -> tuple[Column, Column]:
    column = named(field.name)
    if isinstance(field.dataType, ArrayType | StructType | MapType):
        value = sf.to_json(_canonical(column, field.dataType), {"ignoreNullFields": "false"})
    else:
        value = sf.expr(_value(field, widen=widen))
    return column.isNull(), value


def _value(field: StructField, *, widen: bool) -> str:
    value, kind = quoted(field.name), field.dataType.typeName()
    if widen and kind in {"byte", "short", "integer", "long", "float", "decimal"}:
        return f"CAST({value} AS double)"
    return f"CAST({value} AS timestamp)" if widen and kind == "date" else value


def _canonical(column: Column, kind: DataType) -> Column:
    """`column` in a form whose JSON is one-to-one: micros kept, -0.0 folded, maps sorted by key."""
    if isinstance(kind, ArrayType):
        return sf.transform(column, lambda item: _canonical(item, kind.elementType))
    if isinstance(kind, StructType):
        fields = [_canonical(column.getField(f.name), f.dataType).alias(f.name) for f in kind.fields]
        return sf.when(column.isNotNull(), sf.struct(*fields))
    if isinstance(kind, MapType):
        return _sorted_entries(column, kind)
    if isinstance(kind, DoubleType | FloatType):
        return sf.when(column == 0, sf.lit(0).cast(kind)).otherwise(column)
    if isinstance(kind, TimestampType):
        return sf.unix_micros(column)
    return column.cast("string") if isinstance(kind, TimestampNTZType) else column


def _sorted_entries(column: Column, kind: MapType) -> Column:
    def entry(pair: Column) -> Column:
        key = _canonical(pair.getField("key"), kind.keyType)
        return sf.struct(key.alias("key"), _canonical(pair.getField("value"), kind.valueType).alias("value"))

    return sf.sort_array(sf.transform(sf.map_entries(column), entry))
