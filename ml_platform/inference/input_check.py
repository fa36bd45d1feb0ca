"""Whether a table fits a model's raw input, and a diff that a person can read when it does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ml_platform.errors import DataError, nearest
from ml_platform.specs.contracts import Contract, serves

SHOWN = 40
"""Lines of a diff at most."""

HEAD = ("column", "the model reads", "the table has")


@dataclass(frozen=True)
class InputDiff:
    """Where a table and a model's raw input differ: lines of column, wanted, got."""

    faults: tuple[tuple[str, str, str], ...]
    """Columns that are missing or of another type."""
    extra: tuple[tuple[str, str, str], ...]
    """Columns that the model does not read: no fault, but perhaps a missing one under another name."""
    wanted: int
    """Columns that the model reads."""

    def __str__(self) -> str:
        lines = [*self.faults, *self.extra]
        more = [(f"… and {len(lines) - SHOWN} more", "", "")] if len(lines) > SHOWN else []
        table = [HEAD, *lines[:SHOWN], *more]
        widths = [max(len(line[at]) for line in table) for at in range(2)]
        return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in table)


def input_diff(
    contract: Contract, names: Iterable[str], types: Mapping[str, str] | None = None
) -> InputDiff | None:
    """How a table differs from what a model reads; None when the model can read it.

    Args:
        contract: Raw input of the model.
        names: Columns of the table; others than the contract's do not matter.
        types: Their types (`ColumnType`), as far as known. Numbers serve for numbers.
    """
    there, known = list(names), types or {}
    faults = []
    for column in contract.columns:
        if column.name not in there:
            faults.append((column.name, column.type, f"nothing; {_nearest(column.name, there)}"))
        elif not serves(known.get(column.name, column.type), column.type):
            faults.append((column.name, column.type, known[column.name]))
    if not faults:
        return None
    extra = [(name, "–", known.get(name, "a column")) for name in there if name not in contract.names]
    return InputDiff(tuple(faults), tuple(extra), len(contract.columns))


def check_input(
    contract: Contract,
    names: Iterable[str],
    *,
    types: Mapping[str, str] | None = None,
    model: str = "the model",
) -> None:
    """Check a table's columns against a model's raw input, before anything is scored.

    Args:
        contract, names, types: As `input_diff`.
        model: How the error names the model.
    Raises:
        DataError: Columns are missing or retyped; names every one of them.
    """
    diff = input_diff(contract, names, types)
    if diff:
        raise DataError(
            f"the table does not fit {model}: {len(diff.faults)} of {diff.wanted} columns",
            evidence=str(diff),
            hint="give the table the columns that the model was trained on",
        )


def _nearest(name: str, there: list[str]) -> str:
    """A wide table is not listed once for each missing column."""
    clause = nearest(name, there)
    return clause if clause.startswith("did you mean") else "no column of a similar name"
