"""Values with fields."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, field_validator


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"

    def shade(self) -> str:
        return f"dark {self.value}"


@dataclass(frozen=True)
class Basket:
    """What a customer carries."""

    size: int = 2
    tags: list[str] = field(default_factory=lambda: ["new"])

    def doubled(self) -> int:
        return 2 * self.size


def clean(text: str) -> str:
    return text.strip()


class Line(BaseModel):
    pieces: int = 3


class Order(BaseModel):
    """What a customer wants."""

    amount: int = Field(2, ge=1, lt=100, description="Pieces.")
    share: float | None = 1
    note: Annotated[str, AfterValidator(clean)] = "none"
    lines: list[Line] = Field(default_factory=lambda: [Line()])

    @field_validator("amount")
    @classmethod
    def even(cls, amount: int) -> int:
        return amount - amount % 2 + 2

    def total(self) -> int:
        return self.amount * 41
