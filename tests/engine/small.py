"""Small typed tasks that the engine's tests put together."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel

from ml_platform.engine import task
from ml_platform.specs.base import Location, Spec


class Number(BaseModel):
    value: int
    even: bool = False


class Pair(NamedTuple):
    left: int
    right: str


class Halves(BaseModel):
    low: list[int]
    high: list[int]


class Written(Spec):
    """A file, and what it holds."""

    uri: Location
    text: str


Choice = Literal["promote", "hold"]


@task
def number(value: int) -> Number:
    return Number(value=value, even=value % 2 == 0)


@task
def add(x: int, y: int = 1) -> int:
    return x + y


@task
def total(values: list[int]) -> int:
    return sum(values)


@task
def count_to(n: int) -> list[int]:
    return list(range(n))


@task
def is_even(n: int) -> bool:
    return n % 2 == 0


@task
def choose(n: int) -> Choice:
    return "promote" if n > 10 else "hold"


@task
def both(n: int) -> tuple[int, str]:
    return n, str(n)


@task
def pair(n: int) -> Pair:
    return Pair(n, str(n))


@task
def halves(n: int) -> Halves:
    return Halves(low=list(range(n)), high=list(range(n, 2 * n)))


@task
def say(value: int | None) -> str:
    return "nothing" if value is None else str(value)


@task
def spell(word: str) -> str:
    return "-".join(word)


@task
def parity(n: int) -> int:
    return n % 2


@task
def write(folder: str, text: str) -> Written:
    path = Path(folder, "written")
    path.write_text(text)
    return Written(uri=path.as_uri(), text=text)


@task
def length(file: Written) -> int:
    return len(file.text)


@task
def note(file: str, n: int = 0) -> int:
    """Append a line, so that other processes and threads can count how often it ran."""
    with Path(file).open("a") as lines:
        lines.write(f"{n}\n")
    return n


def lines_of(file: Path) -> int:
    """How often `note` ran."""
    return len(file.read_text().splitlines()) if file.exists() else 0
