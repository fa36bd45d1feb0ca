"""What a table holds, column by column: what was counted while it was loaded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ml_platform.specs.base import Spec
from ml_platform.specs.contracts import ColumnKind


class Frequent(Spec):
    """A value and how often it occurs."""

    value: str
    share: float = Field(ge=0, le=1, description="Of the column's values that were looked at.")


class ColumnProfile(Spec):
    """One column. Counts are of every row; quantiles and frequent values are of the sample."""

    name: str
    kind: ColumnKind
    nulls: int = Field(ge=0, description="Rows without a value; NaN is none.")
    distinct: int = Field(ge=0, description="Different values: exact up to 1,000, else within some percent.")
    low: str | None = Field(None, description="Smallest value, of numbers, dates and timestamps.")
    high: str | None = Field(None, description="Largest value.")
    quantiles: tuple[float, ...] = Field((), description="At 1, 25, 50, 75 and 99 %, of finite numbers.")
    bars: tuple[float, ...] = Field((), description="Shares of equal steps from the 1st to the 99th percent.")
    frequent: tuple[Frequent, ...] = Field((), description="Most frequent values, the first most of all.")


class Profile(Spec):
    """A table's columns, in order."""

    rows: int = Field(ge=0)
    sampled: int = Field(ge=0, description="Rows of the sample.")
    columns: tuple[ColumnProfile, ...]


class Finding(Spec):
    """Something about a column that a person should know."""

    column: str
    problem: Literal["empty", "constant", "identifier", "leak", "outliers"]
    said: str = Field(description="With numbers, in a few words.")
