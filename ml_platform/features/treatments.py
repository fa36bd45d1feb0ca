"""Which column becomes what: its type's own treatment, or the one that the spec asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ml_platform.errors import SpecError, nearest
from ml_platform.specs.contracts import Column, Contract
from ml_platform.specs.tables import ColumnFeatures, FeatureSpec, Treatment

TREATMENTS: Mapping[str, tuple[Treatment, ...]] = {
    "integer": ("number", "category"),
    "float": ("number", "category"),
    "decimal": ("number", "category"),
    "boolean": ("number", "category"),
    "date": ("time", "category"),
    "timestamp": ("time",),
    "string": ("category",),
}
"""Treatments that fit a type; the first is what it gets when nobody asks for another."""


@dataclass(frozen=True)
class Treated:
    """A column and how it is treated, with every setting decided."""

    name: str
    treat: Treatment
    impute: str
    scale: str
    log: str
    missing_flag: bool
    vocabulary: int


def check_names(names: Collection[str], label: str | None, spec: FeatureSpec) -> None:
    """Refuse a spec that names columns which are not there.

    Raises:
        SpecError: Names the column, where it stands in the spec, and the nearest name.
    """
    known = [name for name in names if name != label]
    for what, asked in {"drop": spec.drop, "columns": spec.columns}.items():
        for name in asked:
            if name == label:
                raise SpecError(f"features.{what} names {name!r}: that is the label", wanted="other columns")
            if name not in known:
                hint = nearest(name, known)
                raise SpecError(f"features.{what} names column {name!r}: there is none", hint=hint)


def treated_columns(contract: Contract, spec: FeatureSpec) -> tuple[Treated, ...]:
    """Columns that features are made of, in the order of the contract.

    Raises:
        SpecError: The spec names a column that is not there, or a treatment that does not fit a type.
    """
    check_names(contract.names, contract.label, spec)
    left_out = {*spec.drop, contract.label}
    columns = [c for c in contract.columns if c.name not in left_out and c.type in TREATMENTS]
    return tuple(_treated(column, spec) for column in columns)


def _treated(column: Column, spec: FeatureSpec) -> Treated:
    own = spec.columns.get(column.name, ColumnFeatures())
    fitting = TREATMENTS[column.type]
    treat = own.treat or fitting[0]
    if treat not in fitting:
        raise SpecError(
            f"column {column.name!r} cannot be treated as {treat}",
            wanted=f"{' or '.join(fitting)}, as its type is {column.type}",
            got=f"features.columns.{column.name}.treat = {treat}",
            hint="take one of these, or give the column another type in the source",
        )
    whole = column.type == "boolean"  # 0 and 1 say what they say without a scale
    return Treated(
        name=column.name,
        treat=treat,
        impute=own.impute or spec.impute,
        scale=own.scale or ("none" if whole else spec.scale),
        log=own.log or ("never" if whole else spec.log),
        missing_flag=spec.missing_flag,
        vocabulary=own.vocabulary or spec.vocabulary,
    )
