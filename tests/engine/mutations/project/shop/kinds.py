"""Classes that add to a type which Python knows, and values that hold more than their items."""

from __future__ import annotations

import collections
import dataclasses
import functools
from pathlib import PurePosixPath
from typing import Any

import numpy as np


class Allowed(set[int]):
    def allows(self, n: int) -> bool:
        return n in self


class Folder(PurePosixPath):
    def below(self) -> PurePosixPath:
        return self / "below"


class twice(property):  # noqa: N801
    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return 2 * super().__get__(owner, kind)


class Negated(functools.partial[int]):
    def __call__(self, *args: Any) -> int:
        return -1 * super().__call__(*args)


class Rated:
    __rate__ = 107

    @twice
    def price(self) -> int:
        return 109


class Coin(int):
    unit: str

    def __new__(cls, value: int, unit: str) -> Coin:
        made = super().__new__(cls, value)
        made.unit = unit
        return made


ALLOWED = Allowed({1, 2})
FOLDER = Folder("shop")
NEGATED = Negated(int, "3")
LATEST = collections.deque([1, 2], maxlen=5)
LAYERS = collections.ChainMap({"a": 1}, {"a": 2})
MASKED = np.ma.array([1, 2], mask=[0, 1])
COIN = Coin(1, "chf")


def labelled(**labels: int) -> dict[str, int]:
    return labels


def named() -> dict[str, int]:
    inner = 1
    outer = 2
    return dict(locals())


MADE = dataclasses.make_dataclass("Made", [("size", int, dataclasses.field(default=167))])
