"""Which rank reads which rows: the arithmetic that makes 1, 2 and 4 ranks see the same global batches."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings, strategies as st

from ml_platform.errors import DataError, SpecError
from ml_platform.worker.lanes import Lane, Range, RowGroup, cut, plan_batches, plan_epoch, plan_span

GROUPS = [RowGroup("file:///a", 0, 70), RowGroup("file:///a", 1, 30), RowGroup("file:///b", 0, 61)]

groups_of_any_size = st.lists(st.integers(1, 300), min_size=1, max_size=8).map(
    lambda sizes: [RowGroup(f"file:///{i % 3}", i, rows) for i, rows in enumerate(sizes)]
)


def rows_of(ranges: list[Range] | tuple[Range, ...]) -> list[tuple[RowGroup, int]]:
    return [(part.group, part.offset + i) for part in ranges for i in range(part.rows)]


def lanes_of_all(
    groups: list[RowGroup], world_size: int, *, batch_rows: int, epoch: int = 0, shuffle: bool = True
) -> list[Lane]:
    batching = plan_batches(sum(g.rows for g in groups), batch_rows=batch_rows, world_size=world_size)
    plans = [
        plan_epoch(groups, batching, rank=rank, seed=3, epoch=epoch, shuffle=shuffle)
        for rank in range(world_size)
    ]
    return list(itertools.chain.from_iterable(plans))


@given(groups=groups_of_any_size, lane_rows=st.integers(1, 6), shuffle=st.booleans(), epoch=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_every_row_at_most_once_in_equal_lanes_for_any_number_of_ranks(
    groups: list[RowGroup], lane_rows: int, shuffle: bool, epoch: int
) -> None:
    """No row is trained on twice in an epoch, lanes are equally long, and 1, 2 and 4 ranks share them."""
    batch_rows = 8 * lane_rows
    if sum(group.rows for group in groups) < batch_rows:
        return
    plans = {
        n: lanes_of_all(groups, n, batch_rows=batch_rows, epoch=epoch, shuffle=shuffle) for n in (1, 2, 4, 8)
    }
    lanes = plans[1]
    assert all(plan == lanes for plan in plans.values())
    rows = [row for lane in lanes for row in rows_of(lane.ranges)]
    assert len(rows) == len(set(rows))
    assert set(rows) <= set(rows_of([Range(group, 0, group.rows) for group in groups]))
    assert {lane.rows for lane in lanes} == {sum(g.rows for g in groups) // batch_rows * lane_rows}


@given(groups=groups_of_any_size, world_size=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_evaluation_reads_each_row_exactly_once_in_order(groups: list[RowGroup], world_size: int) -> None:
    """The ranks' spans, one after the other, are the table."""
    spans = [plan_span(groups, rank=rank, world_size=world_size) for rank in range(world_size)]
    whole = rows_of([Range(group, 0, group.rows) for group in groups])
    assert rows_of(list(itertools.chain.from_iterable(spans))) == whole


def test_without_shuffle_lanes_are_the_manifests_order() -> None:
    """The first lane begins with the first row, the second where the first ends."""
    lanes = lanes_of_all(GROUPS, 2, batch_rows=16, shuffle=False)
    rows = [row for lane in lanes for row in rows_of(lane.ranges)]
    assert rows == rows_of([Range(group, 0, group.rows) for group in GROUPS])[:160]


def test_with_shuffle_epochs_differ_and_drop_other_rows() -> None:
    """Even a table of one row group loses another tail each epoch."""
    one = [RowGroup("file:///a", 0, 161)]
    whole = set(rows_of([Range(one[0], 0, 161)]))
    lanes = [lanes_of_all(one, 1, batch_rows=16, epoch=epoch) for epoch in range(6)]
    dropped = {frozenset(whole - {row for lane in plan for row in rows_of(lane.ranges)}) for plan in lanes}
    assert all(len(rows) == 1 for rows in dropped)
    assert len(dropped) > 1
    assert lanes[0] != lanes[1]


def test_large_row_groups_are_read_about_once() -> None:
    """Blocks are mixed within a window of row groups, so that a lane does not return to a group it left."""
    groups = [RowGroup("file:///a", i, 65_536) for i in range(16)]
    for lane in lanes_of_all(groups, 1, batch_rows=256):
        visits = [group for group, _ in itertools.groupby(part.group for part in lane.ranges)]
        assert len(visits) <= 4


@pytest.mark.parametrize(("world_size", "lanes"), [(1, 8), (2, 8), (3, 9), (4, 8), (5, 10), (8, 8), (16, 16)])
def test_lanes_are_eight_or_the_next_multiple(world_size: int, lanes: int) -> None:
    """A number of lanes that does not depend on the ranks, where it can be."""
    assert plan_batches(10_000, batch_rows=720, world_size=world_size).lanes == lanes


def test_batch_that_lanes_do_not_divide_takes_one_lane_per_rank() -> None:
    """A batch of 50 still trains on 2 ranks, with global batches of its own."""
    batching = plan_batches(1_000, batch_rows=50, world_size=2)
    assert (batching.lanes, batching.share, batching.steps, batching.dropped) == (2, 25, 20, 0)


def test_batch_that_ranks_cannot_share_is_refused_with_the_next_one() -> None:
    with pytest.raises(SpecError, match="51 rows cannot be shared evenly by 2 ranks") as caught:
        plan_batches(1_000, batch_rows=51, world_size=2)
    assert caught.value.hint == "batch_rows=52"


def test_fewer_rows_than_a_batch_is_a_data_error_with_numbers() -> None:
    with pytest.raises(DataError, match="fewer rows than one global batch: 63 < 64"):
        plan_batches(63, batch_rows=64, world_size=2)


def test_cut_splits_ranges() -> None:
    ranges = [Range(GROUPS[0], 5, 10), Range(GROUPS[1], 0, 3), Range(GROUPS[2], 1, 9)]
    assert cut(ranges, 8, 7) == [Range(GROUPS[0], 13, 2), Range(GROUPS[1], 0, 3), Range(GROUPS[2], 1, 2)]
    assert cut(ranges, 22, 5) == []
