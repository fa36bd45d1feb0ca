"""Columns of the types that a person declared. What does not parse says so in the column of reasons."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, cast

from ml_platform.data.text_types import DATE, EXPONENT, FRACTION, MISSING, TIMESTAMP, WORDS
from ml_platform.errors import DataError
from ml_platform.specs.contracts import ColumnKind, ColumnType
from ml_platform.specs.schemas import TableSchema
from ml_platform.store.datasets import COLUMN_TYPES
from ml_platform.store.sql import literal, quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

STORED = {
    "integer": "bigint",
    "float": "double",
    "decimal": "decimal(38,18)",
    "boolean": "boolean",
    "category": "string",
    "text": "string",
    "date": "date",
    "timestamp": "timestamp",
}
"""Spark's type of each declared one. An identifier stays what it is."""
DIGITS = r"[+-]?\d{1,19}"
TEXTS = {
    "integer": f"^(?:{DIGITS})$",
    "float": rf"^(?:[+-]?\d+(?:\.\d*)?(?:{EXPONENT})?|{FRACTION})$",
    "decimal": r"^[+-]?(?:\d{1,20}(?:\.\d{0,18})?|\.\d{1,18})$",
    "boolean": "^(?i:true|false|t|f|yes|no|y|n|1|0)$",
    "date": f"^{DATE}$",
    "timestamp": f"^(?:{DATE}|{TIMESTAMP})$",
}
"""How values of each type are written. Whoever declares a number means one: 007 is 7."""
WHOLE = "{0} = floor({0}) AND abs({0}) < 9223372036854775808"
FITS = {
    ("float", "integer"): WHOLE,
    ("decimal", "integer"): WHOLE,
    ("boolean", "integer"): "true",
    ("integer", "float"): "true",
    ("decimal", "float"): "true",
    ("integer", "decimal"): "true",
    ("float", "decimal"): "true",
    ("integer", "boolean"): "{0} IN (0, 1)",
    ("float", "boolean"): "{0} IN (0, 1)",
    ("timestamp", "date"): "true",
    ("date", "timestamp"): "true",
}
"""Which values of a column become those of another type."""
WRITTEN = {"integer", "float", "decimal", "boolean", "date", "timestamp"}
"""Types whose values have a text, as a category."""
SHOWN = 60


def as_text(schema: TableSchema | None) -> frozenset[str]:
    """Columns that a source of text must leave as they are written: their type is not to be found out."""
    kinds = {} if schema is None else schema.kinds
    return frozenset(name for name, kind in kinds.items() if kind in STORED)


def declared_types(schema: TableSchema) -> dict[str, ColumnType]:
    """Types of the columns that are declared. An identifier stays what it is."""
    return {name: _type(kind) for name, kind in schema.kinds.items() if kind != "identifier"}


def declared(frame: DataFrame, reason: str, schema: TableSchema | None, source: str) -> DataFrame:
    """The frame without dropped columns, the others of their declared types.

    Args:
        reason: The column of reasons. A value that is not of its column's type is one.
    Raises:
        DataError: No value of a column could ever be of its declared type.
    """
    if schema is None:
        return frame
    kinds, dropped = schema.kinds, schema.dropped
    columns, faults = [], [quoted(reason)]
    for field in frame.schema.fields:
        name, have = field.name, COLUMN_TYPES.get(field.dataType.typeName(), field.dataType.simpleString())
        kind = kinds.get(name)
        if name == reason or name in dropped:
            continue
        if kind is None or kind == "identifier" or have == _type(kind):
            columns.append(quoted(name))
            continue
        fits, value = _converted(name, have, kind, source)
        columns.append(f"CASE WHEN {fits} THEN {value} END AS {quoted(name)}")
        what = literal(f"column {name!r} is no {WORDS.get(STORED[kind], kind)}: ")
        shown = f"substring(CAST({quoted(name)} AS string), 1, {SHOWN})"
        is_wrong = f"NOT {_is_missing(name, have)} AND NOT coalesce({fits}, false)"
        faults.append(f"CASE WHEN {is_wrong} THEN concat({what}, {shown}) END")
    return frame.selectExpr(*columns, f"coalesce({', '.join(faults)}) AS {quoted(reason)}")


def typed_as(frame: DataFrame, types: Mapping[str, ColumnType]) -> DataFrame:
    """The frame, its columns without a value of these types, of text where none is said."""
    empty = [field.name for field in frame.schema.fields if field.dataType.typeName() == "void"]
    kinds: Mapping[str, str] = STORED
    filled = {name: kinds.get(types.get(name, "string"), "string") for name in empty}
    columns = (
        f"CAST(NULL AS {filled[name]}) AS {quoted(name)}" if name in filled else quoted(name)
        for name in frame.columns
    )
    return frame.selectExpr(*columns) if empty else frame


def texts_of(frame: DataFrame, names: Set[str]) -> DataFrame:
    """The frame with these columns as text: of a number the text that a declared category or text has."""
    types = {field.name: COLUMN_TYPES.get(field.dataType.typeName()) for field in frame.schema.fields}
    written = [name for name in names if types.get(name) in WRITTEN]
    if not written:
        return frame
    return frame.selectExpr(
        *[
            f"CAST({quoted(name)} AS string) AS {quoted(name)}" if name in written else quoted(name)
            for name in frame.columns
        ]
    )


def _type(kind: ColumnKind) -> ColumnType:
    return cast("ColumnType", "string" if kind in {"category", "text"} else kind)


def _converted(name: str, have: str, kind: ColumnKind, source: str) -> tuple[str, str]:
    """Whether a value is of this type, and the value; as SQL text."""
    value, stored = quoted(name), STORED[kind]
    if stored == "string" and have in WRITTEN:
        return "true", f"CAST({value} AS string)"
    cast = f"TRY_CAST({value} AS {stored})"
    if have == "string":
        return f"({value} RLIKE r'{TEXTS[kind]}' AND {cast} IS NOT NULL)", cast
    if (have, kind) in FITS:
        return f"({FITS[have, kind].format(value)} AND {cast} IS NOT NULL)", cast
    raise DataError(
        f"{source}: column {name!r} cannot be declared {kind}",
        wanted=f"values that can be read as {kind}",
        got=f"a column of type {have}",
        hint="declare another type in the schema, or `drop`",
    )


def _is_missing(name: str, have: str) -> str:
    value = quoted(name)
    absent = {"string": f"{value} IN ({', '.join(map(repr, MISSING))})", "float": f"isnan({value})"}
    return f"({value} IS NULL OR {absent.get(have, 'false')})"
