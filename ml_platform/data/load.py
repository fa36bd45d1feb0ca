"""Loading a table: typed columns, bad rows and rows without a label set aside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.data.findings import find, notes
from ml_platform.data.labels import Labelled, judged
from ml_platform.data.profile import TableSurveyor
from ml_platform.data.sources import check_source, direct_read, open_source, read_source, source_identity
from ml_platform.data.text_types import QUARANTINE_LIMIT
from ml_platform.errors import DataError
from ml_platform.resources.progress import report
from ml_platform.specs.contracts import RAW_TYPES
from ml_platform.specs.references import Dataset, Table
from ml_platform.specs.schemas import TableSchema
from ml_platform.specs.sources import ReadingSpec
from ml_platform.store.datasets import (
    COLUMN_TYPES,
    remove_dataset,
    removed_on_failure,
    spark_frame,
    write_dataset,
    write_pieces,
)
from ml_platform.store.pieces import DoubtError, can_write_pieces

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType, StructType

__all__ = ["check_source", "load_table"]

EXAMPLES = 2
REASONS = 10


def load_table(
    spark: SparkSession,
    source: str,
    label: str,
    schema: TableSchema | None = None,
    reading: ReadingSpec = ReadingSpec(),
) -> Table:
    """Read a source into the store.

    Columns have the types that `schema` declares, else those that are found. Bad rows (another number of
    fields, a value that is not of its column's type, no label) go to a quarantine data set with the reason
    beside each. Columns of nested and binary types are left out and named in a progress report.

    Raises:
        DataError: The source is missing, empty, corrupt or was changed while it was read, more than 5 % of
            its rows are bad, or a column cannot be of its declared type.
        SpecError: There is no column `label`, or `source` or `schema` names what does not exist.
    """
    check_source(source, label, schema, reading)
    before = source_identity(source, reading)
    request = _Request(source, label, schema, reading, before)
    return _read_directly(spark, request) or _loaded(spark, request)


@dataclass(frozen=True)
class _Request:
    """What was asked for, and what the source held then."""

    source: str
    label: str
    schema: TableSchema | None
    reading: ReadingSpec
    before: dict[str, str]


def _read_directly(spark: SparkSession, request: _Request) -> Table | None:
    """The table as its tasks read it with Arrow; None, and nothing in the store, where Spark must read it."""
    source, label = request.source, request.label
    least = spark.sparkContext.defaultParallelism
    direct = direct_read(source, label, request.schema, request.reading, least)
    if direct is None or not can_write_pieces() or spark.conf.get("spark.sql.session.timeZone") != "UTC":
        return None
    read, reason = direct
    if read.pieces.schema.names == [label]:
        return None
    with removed_on_failure() as written:
        surveyor = _surveyor(read.pieces.schema, label, request.schema)
        try:
            data, bad = write_pieces(
                spark, Labelled(read.pieces, label), name="table", label=label, surveyor=surveyor
            )
        except DoubtError:
            return None
        written.append(data)
        quarantine = _quarantined(read.frame(spark, reason), reason, label) if bad else None
        written += [quarantine] if quarantine is not None else []
        if read.holds(surveyor.profile, bad) and (quarantine is None or quarantine.rows == bad):
            return _table(spark, request, surveyor, data, quarantine, reason, total=data.rows + bad)
        for each in written:
            remove_dataset(each)
    return None


def _loaded(spark: SparkSession, request: _Request) -> Table:
    """The table as Spark reads it."""
    source, label = request.source, request.label
    read, reason = read_source(spark, source, label, request.schema, request.reading)
    frame, left_out = usable(read, reason, source, label)
    with removed_on_failure() as written:
        surveyor = survey(frame, reason, label, request.schema)
        data, bad, total = _write_good(judged(frame, reason, label), reason, source, label, surveyor)
        written.append(data)
        quarantine = _quarantined(frame, reason, label) if bad else None
        written += [quarantine] if quarantine is not None else []
        return _table(spark, request, surveyor, data, quarantine, reason, total, left_out)


def _quarantined(frame: DataFrame, reason: str, label: str) -> Dataset:
    return write_dataset(judged(frame, reason, label).where(_named(reason).isNotNull()), name="quarantine")


def _table(
    spark: SparkSession,
    request: _Request,
    surveyor: TableSurveyor,
    data: Dataset,
    quarantine: Dataset | None,
    reason: str,
    total: int,
    left_out: tuple[str, ...] = (),
) -> Table:
    """What was written, if it is fit for use."""
    source = request.source
    if total == 0:
        raise DataError(f"{source} is empty", wanted="rows", got="0 rows")
    _check_unchanged(source, request.reading, request.before)
    _check_quarantine(spark, quarantine, reason, request, total)
    findings = find(surveyor.profile, surveyor.sample, request.label)
    for note in notes(findings):
        report(note)
    return Table(
        data=data,
        quarantined=total - data.rows,
        quarantine=quarantine,
        source=source,
        profile=surveyor.profile,
        findings=findings,
        notes=(*open_source(source, request.reading).notes(), *left_out),
    )


def survey(frame: DataFrame, reason: str, label: str | None, schema: TableSchema | None) -> TableSurveyor:
    """What looks at the frame while it is written; the column of reasons is not written."""
    return _surveyor(frame.drop(reason).schema, label, schema)


def _surveyor(rows: StructType, label: str | None, schema: TableSchema | None) -> TableSurveyor:
    types = {field.name: COLUMN_TYPES[field.dataType.typeName()] for field in rows.fields}
    return TableSurveyor(types, {} if schema is None else schema.kinds, label)


def usable(
    frame: DataFrame, reason: str, source: str, label: str | None
) -> tuple[DataFrame, tuple[str, ...]]:
    """The columns whose types models can take, and the reason; and a note of the others."""
    types = {field.name: field.dataType for field in frame.schema.fields if field.name != reason}
    kept = [name for name, kind in types.items() if COLUMN_TYPES.get(kind.typeName()) in RAW_TYPES]
    dropped = [f"{name} ({_type_name(types[name])})" for name in types if name not in kept]
    has_label = label is None or label in kept
    if not has_label or len(kept) < (1 if label is None else 2):
        what = "has no column to learn from" if has_label else f"has a label {label!r} of no usable type"
        raise DataError(
            f"{source} {what}",
            wanted=", ".join(sorted(RAW_TYPES)),
            got=", ".join(dropped) or f"the label {label!r} alone",
        )
    if not dropped:
        return frame, ()
    columns = f"{len(dropped)} column{'s' if dropped[1:] else ''}"
    more = ", …" if dropped[10:] else ""
    note = f"left out {columns} of types that models cannot take: {', '.join(dropped[:10])}{more}"
    report(note)
    return frame.select([_named(name) for name in (*kept, reason)]), (note,)


def _type_name(kind: DataType) -> str:
    """What a person calls it. JSON lines do not say what is in their objects and arrays."""
    return "nested" if kind.typeName() in {"array", "map", "struct"} else kind.simpleString()


def _write_good(
    frame: DataFrame, reason: str, source: str, label: str, surveyor: TableSurveyor
) -> tuple[Dataset, int, int]:
    """Write the rows that are good. Returns them, how many are bad, and how many there are."""
    import pyspark.sql.functions as sf
    from pyspark.sql import Observation

    bad = _named(reason).isNotNull()
    observation = Observation()
    seen = frame.observe(observation, sf.count(sf.lit(1)).alias("rows"), sf.count_if(bad).alias("bad"))
    with _named_after(source):
        data = write_dataset(seen.where(~bad).drop(reason), name="table", label=label, surveyor=surveyor)
    counts = observation.get
    if counts["rows"] - counts["bad"] != data.rows:
        # An executor was lost and rows were seen twice; the data set itself is checked on its own.
        counts = {"rows": frame.count(), "bad": frame.where(bad).count()}
    return data, counts["bad"], counts["rows"]


def _check_unchanged(source: str, reading: ReadingSpec, before: dict[str, str]) -> None:
    """Types, good rows and bad ones come from passes of their own: they must have seen the same rows."""
    after = source_identity(source, reading)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise DataError(
            f"{source} was changed while it was read",
            wanted="files that stay as they are",
            got=f"another {', '.join(changed[:3])}"
            + (f" and {len(changed) - 3} more" if changed[3:] else ""),
            hint="run it again when nothing writes there any more; replace a table under another name",
        )


def _check_quarantine(
    spark: SparkSession, quarantine: Dataset | None, reason: str, request: _Request, total: int
) -> None:
    if quarantine is None or quarantine.rows <= QUARANTINE_LIMIT * total:
        return
    raise DataError(
        f"{request.source}: too many rows are bad",
        wanted=f"at most {QUARANTINE_LIMIT:.0%} of {total} rows",
        got=f"{quarantine.rows} rows ({quarantine.rows / total:.1%})",
        evidence="\n".join(_worst(spark_frame(spark, quarantine), reason)),
        hint="repair the source, or remove these rows from it"
        + (", or say otherwise in --schema" if request.schema is not None else ""),
    )


def _worst(frame: DataFrame, reason: str) -> Iterator[str]:
    """The most frequent reasons, each with rows that have it."""
    import pyspark.sql.functions as sf

    what = sf.substring_index(_named(reason), ": ", 1)
    counted = frame.groupBy(what.alias("what")).agg(sf.count(sf.lit(1)).alias("rows"))
    for why, rows in counted.orderBy(sf.desc("rows"), "what").limit(REASONS).collect():
        yield f"{rows:,} × {why}"
        for row in frame.where(what == why).limit(EXAMPLES).collect():
            yield f"  {json.dumps(row.asDict(), default=str, ensure_ascii=False)[:300]}"


def _named(name: str) -> Column:
    from ml_platform.store.fingerprint import named

    return named(name)


@contextmanager
def _named_after(source: str) -> Iterator[None]:
    """The source is read while the data set is written: what cannot be read is the source's fault."""
    try:
        yield
    except DataError as error:
        raise DataError(
            f"{source} cannot be loaded: {error.what}",
            wanted=error.wanted,
            got=error.got,
            evidence=error.evidence,
            hint=error.hint,
        ) from error
