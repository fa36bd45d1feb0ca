"""Exact counts: mergeable, so that fitted statistics do not depend on layout."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
from hypothesis import given, settings, strategies as st

from ml_platform.features import counts
from ml_platform.features.counts import Counted, bin_values, bins, count_batches, merged


def test_small_whole_numbers_are_exact_and_others_within_a_part_in_512() -> None:
    whole = np.arange(-1024, 1025, dtype=np.float64)
    assert np.array_equal(bin_values(bins(whole, 0.0).astype(np.int64), 0.0), whole)
    years = np.arange(1990, 2030, dtype=np.float64)
    assert np.array_equal(bin_values(bins(years, 1990.0).astype(np.int64), 1990.0), years)
    values = np.exp(np.linspace(-60, 60, 10_001))
    errors = 1 - bin_values(bins(values, 0.0).astype(np.int64), 0.0) / values
    assert errors.min() >= 0
    assert errors.max() < 1 / 512


def test_values_beyond_float32_and_minus_zero_have_a_bin() -> None:
    extremes = bins(np.array([1.7e308, -1.7e308, 1e-320, -0.0, 0.0]), 0.0)
    assert ((extremes >= 0) & (extremes < counts.BINS)).all()
    assert extremes[3] == extremes[4] == 0
    assert np.isfinite(bin_values(extremes.astype(np.int64), 0.0)).all()


rows = st.lists(
    st.tuples(
        st.none() | st.floats(width=32) | st.sampled_from([0.0, 1.0]),
        st.sampled_from([None, "a", "b", ""]),
        st.integers(0, 3),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(rows=rows, cuts=st.lists(st.integers(0, 40), max_size=4), compact=st.integers(1, 5))
def test_any_partitioning_gives_the_same_counts(
    rows: list[tuple[float | None, str | None, int]], cuts: list[int], compact: int
) -> None:
    x, s, label = zip(*rows, strict=True) if rows else ((), (), ())
    table = pa.table(
        {"x": pa.array(x, pa.float64()), "s": pa.array(s, pa.string()), "label": pa.array(label, pa.int64())}
    )
    whole = _counted([table])
    edges = [0, *sorted(cuts), len(rows)]
    pieces = [table.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    before, counts.COMPACT_ROWS = counts.COMPACT_ROWS, compact
    try:
        assert _counted(pieces).equals(whole)
    finally:
        counts.COMPACT_ROWS = before
    for at in range(3):
        assert sum(row["count"] for row in whole.to_pylist() if row["column"] == at) == len(rows)


WANTED = [Counted("x", "numbers", -1.0), Counted("s", "values"), Counted("label", "labels")]


def _counted(partitions: list[pa.Table]) -> pa.Table:
    batches = [
        batch
        for part in partitions
        for batch in count_batches(part.to_batches(max_chunksize=7), part.schema.names, WANTED)
    ]
    return merged(pa.Table.from_batches(batches, counts.COUNTS))
