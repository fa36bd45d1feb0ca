"""Mixes the rows of lanes and puts lanes side by side.

Places are mixed: the rows themselves are copied once out of their row group, and once into their steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml_platform.worker.columns import Rows

BUFFER_ROWS = 2048
"""Rows of one lane that are mixed with each other."""
ALIGNMENT = 64
"""Bytes of which the address of a tensor is a multiple."""

Column = Callable[[Rows], Any]


class Chosen(NamedTuple):
    """Rows that are still to be copied out of those that they are among.

    Attributes:
        places: Which rows, and in which order. Negative ones are among `others`, from its end.
        others: Few rows that came earlier.
    """

    rows: Rows
    places: NDArray[np.intp] | slice
    others: Rows | None = None

    @classmethod
    def all_of(cls, rows: Rows) -> Chosen:
        return cls(rows, slice(0, len(rows.labels)))

    @property
    def length(self) -> int:
        places = self.places
        return places.stop - places.start if isinstance(places, slice) else len(places)

    def cut(self, rows: int) -> tuple[Chosen, Chosen]:
        """The first `rows` rows, and the rest."""
        places = self.places
        if isinstance(places, slice):
            at = places.start + rows
            return self._replace(places=slice(places.start, at)), self._replace(places=slice(at, places.stop))
        return self._replace(places=places[:rows]), self._replace(places=places[rows:])

    def copy_to(self, room: NDArray[Any], column: Column) -> None:
        array, places = column(self.rows), self.places
        if isinstance(places, slice):
            room[:] = array[places]
            return
        array.take(places, axis=0, out=room, mode="clip")  # any row in the place of others, at first
        if self.others is not None:
            others = np.flatnonzero(places < 0)
            room[others] = column(self.others)[places[others]]


def mixed(pieces: Iterable[Chosen], seed: Sequence[int]) -> Iterator[Chosen]:
    """Mix rows within a bounded buffer: half of it leaves whenever it is full.

    Args:
        pieces: Parts that are not mixed yet.
    """
    random = np.random.default_rng(seed)
    held: list[Chosen] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += piece.length
        if count >= BUFFER_ROWS:
            leaving, rest = _shuffled(held, random).cut(count - BUFFER_ROWS // 2)
            yield leaving
            held, count = [rest], rest.length
    if count:
        yield _shuffled(held, random)


class Stream:
    """Rows in the order in which they come, as many at a time as are asked for."""

    def __init__(self, pieces: Iterator[Chosen]) -> None:
        self._pieces = pieces
        self._rest: Chosen | None = None

    def take(self, rows: int) -> list[Chosen]:
        """The next `rows` rows, in parts. There are that many."""
        parts: list[Chosen] = []
        while rows:
            piece = next(self._pieces) if self._rest is None else self._rest
            self._rest = None
            if piece.length > rows:
                piece, self._rest = piece.cut(rows)
            parts.append(piece)
            rows -= piece.length
        return parts


def copied(parts: Sequence[Chosen]) -> Rows:
    """The rows, one part after the other. A single one that was not mixed stays a view."""
    return _of_each(parts[0].rows, lambda column: _copied(parts, column))


def side_by_side(lanes: Sequence[Sequence[Chosen]], steps: int) -> Rows:
    """Steps in which each lane has its share, one lane behind the other."""

    def beside(column: Column) -> NDArray[Any]:
        return _beside([_copied(parts, column) for parts in lanes], steps)

    return _of_each(lanes[0][0].rows, beside)


def _shuffled(parts: Sequence[Chosen], random: np.random.Generator) -> Chosen:
    whole = _together(parts)
    return whole._replace(places=random.permutation(_listed(whole)))


def _together(parts: Sequence[Chosen]) -> Chosen:
    """Parts as one. Those among other rows than the last part are copied, and let go of these."""
    rows = parts[-1].rows
    if all(part.rows is rows for part in parts):
        return parts[0]._replace(places=np.concatenate([_listed(part) for part in parts]))
    others = copied([part for part in parts if part.rows is not rows or part.others is not None])
    places = [_listed(part) for part in parts if part.rows is rows and part.others is None]
    return Chosen(rows, np.concatenate([np.arange(-len(others.labels), 0), *places]), others)


def _listed(chosen: Chosen) -> NDArray[np.intp]:
    places = chosen.places
    return np.arange(places.start, places.stop) if isinstance(places, slice) else places


def _of_each(rows: Rows, column: Callable[[Column], NDArray[Any]]) -> Rows:
    """Rows of what becomes of each of their columns."""
    weights = None if rows.weights is None else column(lambda each: each.weights)
    return Rows(column(lambda each: each.features), column(lambda each: each.labels), weights)


def _copied(parts: Sequence[Chosen], column: Column) -> NDArray[Any]:
    first = parts[0]
    array: NDArray[Any] = column(first.rows)
    if len(parts) == 1 and isinstance(first.places, slice):
        return array[first.places]
    room = np.empty((sum(part.length for part in parts), *array.shape[1:]), array.dtype)
    at = 0
    for part in parts:
        part.copy_to(room[at : at + part.length], column)
        at += part.length
    return room


def _beside(lanes: Sequence[NDArray[Any]], steps: int) -> NDArray[Any]:
    """A part of each lane in each step, at an address that TensorFlow takes over without a copy."""
    arrays = [lane.reshape(steps, -1, *lane.shape[1:]) for lane in lanes]
    first = arrays[0]
    if len(arrays) == 1:
        return first
    shape = (steps, sum(array.shape[1] for array in arrays), *first.shape[2:])
    length = math.prod(shape) * first.itemsize
    room = np.empty(length + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return np.concatenate(arrays, axis=1, out=room[start : start + length].view(first.dtype).reshape(shape))
