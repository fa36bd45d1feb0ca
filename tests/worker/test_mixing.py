"""Mixing rows of any parts loses none, and tears none apart."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, strategies as st

from ml_platform.worker.columns import Rows
from ml_platform.worker.mixing import BUFFER_ROWS, Chosen, Stream, copied, mixed, side_by_side

SOURCES = 3
SOURCE_ROWS = 2 * BUFFER_ROWS
PARTS = st.lists(st.tuples(st.integers(0, SOURCES - 1), st.integers(1, SOURCE_ROWS)), min_size=1, max_size=12)


def _sources() -> list[Rows]:
    """Each row has one number in all of its columns, and no other row has it."""
    numbers = np.arange(SOURCES * SOURCE_ROWS, dtype=np.int32).reshape(SOURCES, SOURCE_ROWS)
    return [Rows(each[:, None].astype(np.float32), each, each.astype(np.float32)) for each in numbers]


@given(PARTS)
def test_each_row_leaves_once_and_whole(asked: list[tuple[int, int]]) -> None:
    sources = _sources()
    pieces = [Chosen(sources[source], slice(SOURCE_ROWS - rows, SOURCE_ROWS)) for source, rows in asked]

    rows = copied(list(mixed(pieces, [1])))

    assert sorted(rows.labels) == sorted(
        itertools.chain.from_iterable(sources[source].labels[-rows:] for source, rows in asked)
    )
    assert rows.weights is not None
    assert np.array_equal(rows.features[:, 0], rows.labels)
    assert np.array_equal(rows.weights, rows.labels)


def test_rows_of_different_sources_mix() -> None:
    pieces = [Chosen(source, slice(0, BUFFER_ROWS // 2)) for source in _sources()]

    first = copied([next(mixed(pieces, [1]))]).labels // SOURCE_ROWS

    assert set(first) == {0, 1}
    assert np.count_nonzero(np.diff(first)) > len(first) // 4


def test_lanes_lie_behind_one_another_in_each_step() -> None:
    lanes = [Stream(iter([Chosen(source, slice(0, 8))])).take(6) for source in _sources()]

    rows = side_by_side(lanes, steps=3)

    assert rows.labels.tolist() == [
        [start + at for start in (0, SOURCE_ROWS, 2 * SOURCE_ROWS) for at in (2 * step, 2 * step + 1)]
        for step in range(3)
    ]
    assert rows.features.shape == (3, 6, 1)
