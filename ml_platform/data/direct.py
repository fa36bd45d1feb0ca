"""A table that Spark tasks read with Arrow, in place of Spark's own reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

    from ml_platform.specs.profiles import Profile
    from ml_platform.store.pieces import Pieces

T = TypeVar("T")


@dataclass(frozen=True)
class DirectRead:
    """Rows as Spark's own reader gives them, for less.

    Attributes:
        pieces: They raise DoubtError where rows are not what was thought.
        frame: The same rows by Spark's own reader, and the name of a further column: why a row is bad, else
            null.
        holds: Whether types are those of all rows, to be asked when they were read: given the profile of the
            good ones, and how many were set aside.
    """

    pieces: Pieces
    frame: Callable[[SparkSession, str], DataFrame]
    holds: Callable[[Profile, int], bool] = lambda profile, aside: True


def rows_schema(types: Mapping[str, str]) -> StructType:
    """Spark's schema of columns of these types, by name."""
    from pyspark.sql.types import StructType

    schema = StructType()
    for name, kind in types.items():
        schema.add(name, "long" if kind == "bigint" else kind)
    return schema


def together(parts: Iterable[tuple[T, int]], most: int) -> tuple[tuple[T, ...], ...]:
    """Parts of so many bytes each, put together in their order up to `most` bytes: small files cost as little
    as one of their size.

    >>> together([("a", 5), ("b", 2), ("c", 2), ("d", 3)], most=5)
    (('a',), ('b', 'c'), ('d',))
    """
    pieces: list[list[T]] = []
    size = 0
    for part, more in parts:
        if not pieces or size + more > most:
            pieces.append([])
            size = 0
        pieces[-1].append(part)
        size += more
    return tuple(map(tuple, pieces))
