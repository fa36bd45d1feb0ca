"""Which column becomes what: its type's own treatment, or the one that the spec asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ml_platform.errors import SpecError, nearest
from ml_platform.resources.progress import report
from ml_platform.specs.contracts import Column, ColumnKind, ColumnType, Contract
from ml_platform.specs.tables import ColumnFeatures, FeatureSpec, SplitSpec, TextPieces, Treatment

FITTING: Mapping[str, tuple[Treatment, ...]] = {
    "integer": ("number", "category", "target"),
    "float": ("number", "category"),
    "decimal": ("number", "category"),
    "boolean": ("number", "category"),
    "date": ("time", "category"),
    "timestamp": ("time",),
    "string": ("category", "text", "target"),
}
"""Treatments that fit how a column is stored; the first is what it gets when nothing else is said."""

USUAL: Mapping[ColumnKind, Treatment | None] = {"category": "category", "text": "text", "identifier": None}
"""Treatments of what a column is declared or found to be. An identifier says nothing about other rows."""


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
    hash_above: int
    buckets: int
    pieces: TextPieces


def beside_split(spec: FeatureSpec, split: SplitSpec, label: str) -> FeatureSpec:
    """The spec, which also drops the column that keeps rows apart, unless it says how that one is treated.

    Raises:
        SpecError: An interaction needs that column.
    """
    name = split.apart
    if name is None or name in (label, *spec.drop) or spec.columns.get(name, ColumnFeatures()).treat:
        return spec
    if any(name in pair for pair in spec.interactions):
        raise SpecError(
            f"features.interactions names column {name!r}, which deals the rows and is left out",
            hint=f"say what it is: features.columns.{name}.treat",
        )
    return spec.model_copy(update={"drop": (*spec.drop, name)})


def check_names(names: Collection[str], label: str | None, spec: FeatureSpec) -> None:
    """Refuse a spec that names columns which are not there.

    Raises:
        SpecError: Names the column, where it stands in the spec, and the nearest name.
    """
    known = [name for name in names if name != label]
    paired = [name for pair in spec.interactions for name in pair]
    for what, asked in {"drop": spec.drop, "columns": spec.columns, "interactions": paired}.items():
        for name in asked:
            if name == label:
                raise SpecError(f"features.{what} names {name!r}: that is the label", wanted="other columns")
            if name not in known:
                hint = nearest(name, known)
                raise SpecError(f"features.{what} names column {name!r}: there is none", hint=hint)
    for name in paired:
        if name in spec.drop:
            raise SpecError(f"features.interactions names column {name!r}, which features.drop leaves out")


def check_treatments(types: Mapping[str, ColumnType], spec: FeatureSpec) -> None:
    """Refuse a spec that asks for a treatment which does not fit how a column is stored.

    Args:
        types: As far as known, by name.
    Raises:
        SpecError: Names the column and what fits.
    """
    for name, own in spec.columns.items():
        fitting = FITTING.get(types[name], ()) if name in types else None
        if fitting is not None and own.treat is not None and own.treat not in fitting:
            raise SpecError(
                f"column {name!r} cannot be treated as {own.treat}",
                wanted=f"{', '.join(fitting) or 'no treatment'}: it is stored as {types[name]}",
                got=f"features.columns.{name}.treat = {own.treat}",
                hint="take one of these, or give the column another type in the source",
            )


def treated_columns(contract: Contract, spec: FeatureSpec) -> tuple[Treated, ...]:
    """Columns that features are made of, in the order of the contract.

    Raises:
        SpecError: The spec names a column that is not there, or a treatment that does not fit a type.
    """
    check_names(contract.names, contract.label, spec)
    left_out = {*spec.drop, contract.label}
    columns = [c for c in contract.columns if c.name not in left_out and c.type in FITTING]
    found = [_treated(column, treat, spec) for column in columns if (treat := _treatment(column, spec))]
    identifiers = [column.name for column in columns if _treatment(column, spec) is None]
    for name in identifiers:
        if any(name in pair for pair in spec.interactions):
            raise SpecError(
                f"features.interactions names column {name!r}, which identifies rows and is left out",
                hint=f"say what it is: features.columns.{name}.treat",
            )
    _report_identifiers(identifiers)
    return tuple(found)


def _treatment(column: Column, spec: FeatureSpec) -> Treatment | None:
    fitting = FITTING[column.type]
    check_treatments({column.name: column.type}, spec)
    asked = spec.columns.get(column.name, ColumnFeatures()).treat
    usual = USUAL.get(column.kind, fitting[0]) if column.kind is not None else fitting[0]
    return asked or usual


def _treated(column: Column, treat: Treatment, spec: FeatureSpec) -> Treated:
    own = spec.columns.get(column.name, ColumnFeatures())
    whole = column.type == "boolean"  # 0 and 1 say what they say without a scale
    return Treated(
        name=column.name,
        treat=treat,
        impute=own.impute or spec.impute,
        scale=own.scale or ("none" if whole else spec.scale),
        log=own.log or ("never" if whole else spec.log),
        missing_flag=spec.missing_flag,
        vocabulary=own.vocabulary or spec.vocabulary,
        hash_above=own.hash_above or spec.hash_above,
        buckets=own.buckets or (spec.text_buckets if treat == "text" else spec.buckets),
        pieces=own.pieces or spec.text_pieces,
    )


def _report_identifiers(names: Sequence[str]) -> None:
    if names:
        shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        columns = f"{len(names)} columns that identify" if names[1:] else "1 column that identifies"
        report(f"left out {columns} rows: {shown}; features.columns.NAME.treat says what to make of one")
