"""Cutting a table into train, validation and holdout by the hash of each row's own key."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from ml_platform.data.classes import class_counts
from ml_platform.errors import DataError, SpecError, StoreError, nearest
from ml_platform.specs.contracts import Contract
from ml_platform.specs.problems import ProblemKind
from ml_platform.specs.references import Dataset, Parts
from ml_platform.specs.tables import SplitSpec
from ml_platform.store.datasets import remove_dataset, spark_frame, write_dataset

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

HASH_BITS = 53
"""Bits of a row's hash that place it in [0, 1): as many as a float64 holds."""


def split_table(
    spark: SparkSession, table: Dataset, spec: SplitSpec, problem: ProblemKind = "multiclass"
) -> Parts:
    """Deal the rows of a table into three disjoint parts.

    A row's part depends on its key columns (or its group) and the salt alone: it stays when rows are added,
    and rows with equal keys lie in the same part. The training part has rows of every class, unless the
    `problem` is regression.

    Raises:
        SpecError: A key or group column is not there.
        DataError: A part would be empty, or the training part lacks a class.
    """
    names = key_columns(table.contract, spec)
    frame = spark_frame(spark, table)
    place = _place(frame, names, spec.salt)
    train_ends = 1 - spec.validation - spec.holdout
    conditions = {
        "train": place < train_ends,
        "validation": (place >= train_ends) & (place < train_ends + spec.validation),
        "holdout": place >= train_ends + spec.validation,
    }
    written = _write_all(spark, frame, conditions, table.contract.label)
    parts = Parts(**written)
    try:
        _check(table, parts, spec, problem)
    except BaseException:
        _remove(parts)
        raise
    return parts


def key_columns(contract: Contract, spec: SplitSpec) -> tuple[str, ...]:
    """Columns whose values place a row: the group, else the keys, else all but the label.

    Raises:
        SpecError: One of them is not in the contract.
    """
    names = (spec.group,) if spec.group is not None else spec.key_columns
    for name in names:
        if name not in contract.names:
            hint = nearest(name, contract.names)
            raise SpecError(f"the split needs column {name!r}: there is none", hint=hint)
    return names or contract.inputs().names


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
