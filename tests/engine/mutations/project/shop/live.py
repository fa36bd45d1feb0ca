"""Annotations that are objects: this module does not import them as text."""

import dataclasses
from typing import Annotated, TypeVar

import attrs
import pydantic.dataclasses
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, computed_field, field_validator
from typing_extensions import TypedDict


class Parcel(TypedDict):
    size: int


@dataclasses.dataclass
class Crate:
    size: int


@pydantic.dataclasses.dataclass(config={"str_to_lower": True})
class Label:
    text: str = "A"
    count: int = 1
    other: int = 1

    @field_validator("count", mode="before")
    @classmethod
    def more(cls, count: int) -> int:
        return count + 1


@attrs.define
class Box:
    height: int = 1
    width: int = attrs.field(default=2, converter=lambda width: width + 1)


class Tag(BaseModel):
    name: str = Field("tag", repr=True)

    @computed_field
    @property
    def loud(self) -> str:
        """In capitals."""
        return self.name.upper()


class Item:
    def total(self) -> int:
        return 103


AnyItem = TypeVar("AnyItem", bound=Item)
Written = Annotated[str, StringConstraints(to_lower=True)]


def total_of(items: list["Item"]) -> int:
    return sum(item.total() for item in items)


def parsed() -> list[str]:
    parcel = TypeAdapter(Parcel).validate_python({"size": "3"})
    crate = TypeAdapter(Crate).validate_python({"size": "3"})
    label = Label(text="aB", count=5)
    return [repr(one) for one in (parcel, crate, label, Box(), Tag(), Tag().loud)]


def written(text: Annotated[str, StringConstraints(to_lower=True)]) -> str:
    return str(TypeAdapter(written.__annotations__["text"]).validate_python(text))
