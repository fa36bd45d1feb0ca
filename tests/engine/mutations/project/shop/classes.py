"""Classes of every kind."""

from __future__ import annotations

import abc
from typing import Any


class Named(type):
    def __new__(mcs, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> Any:
        return super().__new__(mcs, name, bases, {**space, "kinds": f"kind of {name}"})


class Counted(metaclass=Named):
    kinds: str


class Shape(abc.ABC):
    """What has an area."""

    margin = 1

    @abc.abstractmethod
    def area(self) -> int: ...

    def describe(self) -> str:
        return f"shape of {self.area() + self.margin}"


class Square(Shape):
    name = "square"

    def __init__(self, side: int) -> None:
        self.side = side

    def area(self) -> int:
        """The square of the side."""
        return self.side * self.side

    @property
    def perimeter(self) -> int:
        return 4 * self.side

    @classmethod
    def unit(cls) -> Square:
        return cls(1)


class Slotted:
    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        self.n = n

    def total(self) -> int:
        return self.n + self._extra()

    @staticmethod
    def _extra() -> int:
        return 37


def area_of(shape: Shape) -> int:
    return shape.area()
