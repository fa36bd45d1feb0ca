"""What a person says of a table's columns."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ml_platform.specs.base import Spec
from ml_platform.specs.contracts import ColumnKind


class TableSchema(Spec):
    """Types of columns, by name. A column that is not named is found out about."""

    columns: dict[str, ColumnKind | Literal["drop"]] = Field(
        {}, description="What each column is; `drop` leaves it out of the table."
    )

    @property
    def dropped(self) -> frozenset[str]:
        return frozenset(name for name, kind in self.columns.items() if kind == "drop")

    @property
    def kinds(self) -> dict[str, ColumnKind]:
        """Of the columns that are not dropped."""
        return {name: kind for name, kind in self.columns.items() if kind != "drop"}
