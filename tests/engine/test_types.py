"""Edge types: what may stand where, decided on annotations."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Protocol, TypedDict, TypeVar

import pytest
from pydantic import BaseModel

from ml_platform.engine.types import field_type, fits, type_name


class Animal(BaseModel):
    legs: int


class Dog(Animal):
    name: str | None = None


class Pair(NamedTuple):
    left: int
    right: str


T = TypeVar("T")
Number = TypeVar("Number", int, float)
Cents = NewType("Cents", int)


class Box(Generic[T]):
    pass


class Crate(Box[int]):
    pass


class Walks(Protocol):
    legs: int

    def walk(self) -> int: ...


class Robot:
    legs = 2

    def walk(self) -> int:
        return self.legs


class Item(TypedDict):
    size: int


class Priced(Item):
    cents: int


FIT = [
    (int, int),
    (bool, int),
    (int, float),
    (Dog, Animal),
    (int, int | None),
    (None, int | None),
    (int | None, int | str | None),
    (list[Dog], list[Animal]),
    (tuple[int, int], tuple[int, ...]),
    (tuple[int, ...], list[int] | tuple[float, ...]),
    (dict[str, Dog], dict[str, Animal]),
    (list[int], list),
    (Literal["a"], str),
    (Literal["a"], Literal["a", "b"]),
    (Annotated[int, "unit: rows"], int),
    (Animal, Any),
    (tuple[int, bool], Sequence[int]),
    (dict[str, int], Iterable[str]),
    (dict[str, int], Mapping[str, float]),
    (str, Sequence[str]),
    (Pair, tuple[int, str]),
    (Pair, Sequence[int | str]),
    (Box[int], Box[int]),
    (Crate, Box[int]),
    (Crate, Box),
    (Robot, Walks),
    (type[Robot], type[Walks]),
    (Priced, Item),
    (Item, dict[str, Any]),
    (Cents, int),
    (list[Cents], list[float]),
    (int, Number),
]
MISFIT = [
    (float, int),
    (Animal, Dog),
    (int | None, int),
    (list[Animal], list[Dog]),
    (list, list[int]),
    (list[int], tuple[int, ...]),
    (tuple[int, ...], tuple[int, int]),
    (tuple[int, int, int], tuple[int, int]),
    (dict[str, int], dict[int, int]),
    (str, Literal["a"]),
    (Literal["a", "c"], Literal["a", "b"]),
    (Any, int),
    (type(None), int),
    (Literal[1], Literal[True]),
    (tuple[int, str], Sequence[int]),
    (dict[str, int], Collection[int]),
    (Pair, tuple[int, int]),
    (Crate, Box[str]),
    (Animal, Walks),
    (int, Walks),
    (Item, Priced),
    (dict[str, int], Item),
    (int, Cents),
    (str, Number),
]


@pytest.mark.parametrize(("got", "wanted"), FIT, ids=str)
def test_a_value_of_the_type_may_stand_there(got: Any, wanted: Any) -> None:
    assert fits(got, wanted)


@pytest.mark.parametrize(("got", "wanted"), MISFIT, ids=str)
def test_a_value_of_the_type_may_not_stand_there(got: Any, wanted: Any) -> None:
    """An unknown or wider type is refused: a wrong edge must not reach a run."""
    assert not fits(got, wanted)


def test_types_are_named_as_a_person_writes_them() -> None:
    assert type_name(dict[str, list[int | None]]) == "dict[str, list[int | None]]"
    assert type_name(Literal["a", 1]) == "Literal['a', 1]"
    assert type_name(tuple[int, ...]) == "tuple[int, ...]"


def test_fields_of_models_and_named_tuples_have_types() -> None:
    assert field_type(Dog, "legs") is int
    assert field_type(Pair, "right") is str


def test_an_unknown_field_says_which_there_are() -> None:
    with pytest.raises(AttributeError, match=r"Dog has no field 'leg'; fields: legs, name"):
        field_type(Dog, "leg")
