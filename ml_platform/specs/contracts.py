"""What a data set promises: columns, their types, whether they may be empty."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema

from ml_platform.errors import SpecError, nearest
from ml_platform.specs.base import Spec

ColumnType = Literal[
    "integer", "float", "decimal", "boolean", "string", "date", "timestamp", "binary", "packed", "list", "map"
]
"""Types of columns. `packed` is a fixed-size binary of `width` little-endian float32 values."""

RAW_TYPES: frozenset[str] = frozenset(
    {"integer", "float", "decimal", "boolean", "string", "date", "timestamp"}
)
"""Types that a model's raw input may have."""


ColumnKind = Literal[
    "integer", "float", "decimal", "boolean", "category", "text", "identifier", "date", "timestamp"
]
"""What the values of a raw column are to a model, declared by a person or found by a rule
(`ml_platform.data.kinds`). A category, a text and most identifiers are stored as strings."""


class Column(Spec):
    """One column of a data set."""

    name: str = Field(min_length=1)
    type: ColumnType
    nullable: bool = True
    width: int | None = Field(None, description="Values per row of a packed column.")
    kind: ColumnKind | None = Field(None, description="The declared type, of a column that was loaded.")
    form: str | None = Field(
        None, description="How the text it was read from writes its values, if unusually."
    )


class Contract(Spec):
    """Columns of a data set, in order, and which of them is the label."""

    columns: tuple[Column, ...]
    label: str | None = None

    @model_validator(mode="after")
    def _names_are_unique(self) -> Contract:
        names = [column.name for column in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"column names appear twice: {', '.join(twice)}")
        if self.label is not None and self.label not in names:
            raise ValueError(f"label {self.label!r} is not a column; {nearest(self.label, names)}")
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # In Annotated[Dataset, Contract(…)] the value is a Dataset: pydantic would take it for a contract.
        return handler(source)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise SpecError(f"no column {name!r}", hint=nearest(name, self.names))

    def without(self, names: Iterable[str]) -> Contract:
        """This contract less the named columns; the label goes with its column."""
        left_out = set(names)
        kept = tuple(column for column in self.columns if column.name not in left_out)
        return Contract(columns=kept, label=None if self.label in left_out else self.label)

    def inputs(self) -> Contract:
        """The raw input of a model: every column except the label."""
        return self if self.label is None else self.without([self.label])


def serves(got: str, wanted: str) -> bool:
    """Whether a column of one type can be read as another. Numbers serve for numbers.

    >>> serves("integer", "float"), serves("date", "timestamp"), serves("string", "float")
    (True, True, False)
    """
    numbers, times = {"integer", "float", "decimal"}, {"date", "timestamp"}
    return got == wanted or {got, wanted} <= numbers or (got in times and wanted == "timestamp")


def missing(needed: Contract, produced: Contract) -> list[str]:
    """Every reason why `produced` cannot stand where `needed` is wanted. Empty when it can.

    A needed column must be there with its type; an integer serves where a float is needed. A column
    that may be null does not serve one that must not.

    >>> age = Column(name="age", type="float")
    >>> missing(Contract(columns=(age,)), Contract(columns=(Column(name="aeg", type="float"),)))
    ["column 'age' (float) is missing; did you mean 'aeg'?"]
    """
    have = {column.name: column for column in produced.columns}
    reasons = []
    for column in needed.columns:
        there = have.get(column.name)
        if there is None:
            reasons.append(f"column {column.name!r} ({column.type}) is missing; {nearest(column.name, have)}")
        elif there.type != column.type and (there.type, column.type) != ("integer", "float"):
            reasons.append(f"column {column.name!r} is {there.type}, wanted {column.type}")
        elif there.nullable and not column.nullable:
            reasons.append(f"column {column.name!r} may be null, wanted values only")
        elif there.width != column.width:
            reasons.append(f"column {column.name!r} holds {there.width} values, wanted {column.width}")
    return reasons
