"""Cutting a table into train, validation and holdout: by the hash of each row's own key, or by time."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from ml_platform.data.classes import class_counts
from ml_platform.errors import DataError, SpecError, StoreError, nearest
from ml_platform.specs.contracts import Contract
from ml_platform.specs.problems import ProblemKind
from ml_platform.specs.references import Dataset, Parts, SplitProof
from ml_platform.specs.tables import SplitSpec
from ml_platform.store.datasets import remove_dataset, spark_frame, write_dataset
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

HASH_BITS = 53
"""Bits of a row's hash that place it in [0, 1): as many as a float64 holds."""

TIMES = ("date", "timestamp")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)
MICROS_PER_DAY = 86_400_000_000

Cuts = tuple[dt.datetime, dt.datetime]
"""First moment of the validation part, and of the holdout."""


def split_table(
    spark: SparkSession, table: Dataset, spec: SplitSpec, problem: ProblemKind = "multiclass"
) -> Parts:
    """Deal the rows of a table into three disjoint parts.

    A row's part depends on its key columns (or its group) and the salt alone: it stays when rows are added,
    and rows with equal keys lie in the same part; see `SplitSpec`, also for a cut by time. What was written
    is searched for keys that lie in two parts. The training part has rows of every class, unless the
    `problem` is regression.

    Raises:
        SpecError: A key or group column is not there.
        DataError: A part would be empty, or the training part lacks a class.
    """
    names = key_columns(table.contract, spec)
    frame = spark_frame(spark, table)
    cuts = _cuts(frame, spec) if spec.time is not None else None
    conditions = _by_key(frame, names, spec) if cuts is None else _by_time(frame, names[0], cuts)
    parts = Parts(**_write_all(spark, frame, conditions, table.contract.label))
    try:
        _check(table, parts, spec, problem)
        return parts.model_copy(update={"proof": _proof(spark, parts, names, cuts)})
    except BaseException:
        _remove(parts)
        raise


def check_names(names: Collection[str], spec: SplitSpec) -> None:
    """Refuse a spec that names columns which are not there.

    Raises:
        SpecError: Names the column and the nearest name.
    """
    asked = [name for name in (spec.group, spec.time, *spec.key_columns) if name is not None]
    for name in asked:
        if name not in names:
            raise SpecError(f"the split needs column {name!r}: there is none", hint=nearest(name, names))


def key_columns(contract: Contract, spec: SplitSpec) -> tuple[str, ...]:
    """Columns whose values place a row: the group or the time, else the keys, else all but the label.

    Raises:
        SpecError: One of them is not in the contract, or the time is none.
    """
    check_names(contract.names, spec)
    if spec.time is not None and contract[spec.time].type not in TIMES:
        raise SpecError(
            f"the split cannot cut by column {spec.time!r}",
            wanted=" or ".join(TIMES),
            got=contract[spec.time].type,
            hint="name a column of times, or give this one another type in the source",
        )
    single = spec.group if spec.group is not None else spec.time
    return (single,) if single is not None else spec.key_columns or contract.inputs().names


def _by_key(frame: DataFrame, names: tuple[str, ...], spec: SplitSpec) -> dict[str, Column]:
    place = _place(frame, names, spec.salt)
    train_ends = 1 - spec.validation - spec.holdout
    return {
        "train": place < train_ends,
        "validation": (place >= train_ends) & (place < train_ends + spec.validation),
        "holdout": place >= train_ends + spec.validation,
    }


def _by_time(frame: DataFrame, name: str, cuts: Cuts) -> dict[str, Column]:
    at = _micros(frame, name)
    first, second = (int((cut - EPOCH) / MICROSECOND) for cut in cuts)
    return {
        "train": at.isNull() | (at < first),
        "validation": (at >= first) & (at < second),
        "holdout": at >= second,
    }


def _cuts(frame: DataFrame, spec: SplitSpec) -> Cuts:
    """Where validation and holdout begin: as asked, or so that the parts have their shares. Exact, so that
    it does not depend on layout; rows of the same moment stay together."""
    import pyspark.sql.functions as sf
    from pyspark.sql import Window

    if spec.validation_from is not None and spec.holdout_from is not None:
        return spec.validation_from, spec.holdout_from
    at = _micros(frame, spec.time or "")
    moments = frame.where(at.isNotNull()).groupBy(at.alias("at")).agg(sf.count(sf.lit(1)).alias("rows"))
    seen = sf.sum("rows").over(Window.orderBy("at"))
    total = sf.sum("rows").over(Window.partitionBy())
    shares = moments.select("at", (seen / total).alias("share"))
    begins = [1 - spec.validation - spec.holdout, 1 - spec.holdout]
    first = [sf.min(sf.when(sf.col("share") > begin, sf.col("at"))).alias(f"c{begin}") for begin in begins]
    with spark_failures("the split found no cuts in time"):
        found = shares.agg(*first).collect()[0]
    if found[0] is None or found[1] is None:
        raise DataError(f"the split cannot cut by column {spec.time!r}", wanted="times", got="nulls alone")
    return EPOCH + found[0] * MICROSECOND, EPOCH + found[1] * MICROSECOND


def _micros(frame: DataFrame, name: str) -> Column:
    """Microseconds since 1970 in UTC; wall clocks without a zone count as UTC."""
    import pyspark.sql.functions as sf

    from ml_platform.store.fingerprint import named

    kind = frame.schema[name].dataType.typeName()
    if kind == "date":
        return sf.unix_date(named(name)).cast("long") * MICROS_PER_DAY
    if kind == "timestamp_ntz":
        there = sf.convert_timezone(sf.lit("UTC"), sf.current_timezone(), named(name))
        return sf.unix_micros(there.cast("timestamp"))
    return sf.unix_micros(named(name))


def _proof(spark: SparkSession, parts: Parts, names: tuple[str, ...], cuts: Cuts | None) -> SplitProof:
    """Look for every key of the written parts in the others.

    Raises:
        StoreError: One is there.
    """
    import pyspark.sql.functions as sf
    from pyspark.sql.types import StructType

    from ml_platform.store.fingerprint import SEEDS, row_hash

    def hashed(part: Dataset, number: int) -> DataFrame:
        frame = spark_frame(spark, part)
        keys = StructType([frame.schema[name] for name in names])
        hashes = [row_hash(keys, seed).alias(f"hash_{seed}") for seed in SEEDS]
        return frame.select(*hashes, sf.lit(number).alias("part"))

    three = [hashed(part, at) for at, part in enumerate((parts.train, parts.validation, parts.holdout))]
    keys = functools.reduce(lambda one, other: one.unionAll(other), three).groupBy(
        *(f"hash_{seed}" for seed in SEEDS)
    )
    ends = keys.agg(sf.min("part").alias("low"), sf.max("part").alias("high"))
    counts = ends.agg(sf.count(sf.lit(1)), sf.count_if(sf.col("low") != sf.col("high")))
    with spark_failures("the parts of the split were not compared"):
        distinct, shared = counts.collect()[0]
    proof = SplitProof(columns=names, distinct=distinct, shared=shared, cuts=cuts)
    if shared:
        raise StoreError("the parts of the split are not disjoint", wanted="0 keys in two parts", got=proof)
    return proof


def _place(frame: DataFrame, names: tuple[str, ...], salt: str) -> Column:
    """Where each row lies in [0, 1)."""
    import pyspark.sql.functions as sf

    from ml_platform.store.fingerprint import key_hash

    hashed = key_hash([frame.schema[name] for name in names], salt)
    return sf.shiftrightunsigned(hashed, 64 - HASH_BITS).cast("double") / sf.lit(float(2**HASH_BITS))


def _write_all(
    spark: SparkSession, frame: DataFrame, conditions: dict[str, Column], label: str | None
) -> dict[str, Dataset]:
    """Write the parts side by side. When one fails, none stays."""
    from pyspark import inheritable_thread_target

    def write(name: str) -> Dataset:
        return write_dataset(frame.where(conditions[name]), name=name, label=label)

    def threaded() -> Callable[[str], Dataset]:
        # One per thread: jobs there belong to the task's group, and threads must not share properties.
        inheriting: Callable[[str], Dataset] = inheritable_thread_target(spark)(write)
        return inheriting

    with ThreadPoolExecutor(len(conditions), thread_name_prefix="split") as pool:
        futures = {name: pool.submit(threaded(), name) for name in conditions}
        wait(futures.values())
    failed = [future.exception() for future in futures.values() if future.exception() is not None]
    if failed:
        for future in futures.values():
            if future.exception() is None:
                remove_dataset(future.result())
        raise failed[0] or AssertionError
    return {name: future.result() for name, future in futures.items()}


def _check(table: Dataset, parts: Parts, spec: SplitSpec, problem: ProblemKind) -> None:
    sizes = {"train": parts.train.rows, "validation": parts.validation.rows, "holdout": parts.holdout.rows}
    numbers = ", ".join(f"{name} {rows}" for name, rows in sizes.items())
    if sum(sizes.values()) != table.rows:
        raise StoreError("the split lost or doubled rows", wanted=f"{table.rows} rows", got=numbers)
    empty = [name for name, rows in sizes.items() if rows == 0]
    if empty:
        raise DataError(
            f"{table.rows} rows are too few to split: {' and '.join(empty)} would be empty",
            wanted="rows in every part",
            got=numbers,
            hint=_hint(spec),
        )
    if table.contract.label is not None and problem != "regression":
        _check_classes(parts, table.contract.label, numbers)


def _hint(spec: SplitSpec) -> str:
    if spec.time is not None:
        return "more moments, larger shares of validation and holdout, or other dates in `split`"
    if spec.group is not None or spec.key_columns:
        return "more rows, key columns with more distinct values, or larger shares in `split`"
    return "more rows, or larger shares of validation and holdout in `split`"


def _check_classes(parts: Parts, label: str, numbers: str) -> None:
    trained = class_counts(parts.train, label)
    others = class_counts(parts.validation, label) + class_counts(parts.holdout, label)
    lacking = sorted(set(others) - set(trained))
    if lacking:
        shown = ", ".join(f"{name!r} ({others[name]} rows)" for name in lacking[:10])
        raise DataError(
            f"the training part lacks {len(lacking)} of {len(trained) + len(lacking)} classes of {label!r}",
            wanted="rows of every class to train on",
            got=f"{shown}; parts: {numbers}",
            hint="more rows of these classes, one class for all rare ones, or another `split.salt`",
        )
    if len(trained) < 2:
        raise DataError(
            f"the training part has rows of one class of {label!r} only",
            wanted="at least 2 classes",
            got=f"{next(iter(trained), 'none')!r}; parts: {numbers}",
            hint="more rows, or another `split.salt`",
        )


def _remove(parts: Parts) -> None:
    for part in (parts.train, parts.validation, parts.holdout):
        remove_dataset(part)
