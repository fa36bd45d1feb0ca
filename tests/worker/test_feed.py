"""Streaming packed Parquet: which bytes reach which rank, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ml_platform.errors import DataError, SpecError
from ml_platform.store.manifest import DataFile
from ml_platform.worker.columns import Columns, Rows
from ml_platform.worker.feed import Feed, open_feed
from ml_platform.worker.lanes import plan_batches
from tests.worker.tables import packed_dataset


def numbered(rows: int, width: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Row i holds i in every feature and in its label."""
    ids = np.arange(rows)
    return np.repeat(ids[:, None], width, axis=1).astype(np.float32), ids.astype(np.int32)


def global_batches(feed: Feed, world_size: int, *, shuffle: bool, epoch: int = 0) -> list[list[int]]:
    batching = plan_batches(feed.rows, batch_rows=32, world_size=world_size)
    shares = [
        list(feed.batches(batching, rank=rank, seed=1, epoch=epoch, shuffle=shuffle))
        for rank in range(world_size)
    ]
    return [
        np.concatenate([share[step].labels for share in shares]).tolist() for step in range(batching.steps)
    ]


@pytest.mark.parametrize("shuffle", [False, True])
def test_global_batches_are_the_same_rows_for_any_number_of_ranks(tmp_path: Path, shuffle: bool) -> None:
    """What is learned from does not depend on how many ranks share the work."""
    feed = open_feed(packed_dataset(tmp_path / "t", *numbered(1000), files=3, group_rows=90))
    one = global_batches(feed, 1, shuffle=shuffle)
    assert len(one) == 31
    assert one == global_batches(feed, 2, shuffle=shuffle) == global_batches(feed, 4, shuffle=shuffle)
    rows = [row for batch in one for row in batch]
    assert len(set(rows)) == len(rows) == 31 * 32


def test_rows_stay_together_with_their_labels(tmp_path: Path) -> None:
    """Features and label of a row come from the same row, shuffled or not."""
    feed = open_feed(packed_dataset(tmp_path / "t", *numbered(700), files=2, group_rows=64))
    batching = plan_batches(feed.rows, batch_rows=64, world_size=1)
    for batch in feed.batches(batching, rank=0, seed=0, epoch=0, shuffle=True):
        assert batch.features.shape == (64, 4)
        assert (batch.features == batch.labels[:, None]).all()


def test_shuffle_is_seeded_and_differs_by_epoch(tmp_path: Path) -> None:
    feed = open_feed(packed_dataset(tmp_path / "t", *numbered(500)))
    first = global_batches(feed, 1, shuffle=True)
    assert first == global_batches(feed, 1, shuffle=True)
    assert first != global_batches(feed, 1, shuffle=True, epoch=1)


def test_span_gives_each_row_once_in_order(tmp_path: Path) -> None:
    feed = open_feed(packed_dataset(tmp_path / "t", *numbered(333), files=3, group_rows=50))
    spans = [list(feed.span(rank=rank, world_size=2, batch_rows=40)) for rank in range(2)]
    labels = np.concatenate([batch.labels for span in spans for batch in span])
    assert labels.tolist() == list(range(333))
    assert max(len(batch.labels) for span in spans for batch in span) <= 40


def test_decoded_row_groups_are_views_and_bounded(tmp_path: Path) -> None:
    """No copy of a row group is made; none is kept that is read once, nor more than the cache allows."""
    feed = Feed(
        _files(packed_dataset(tmp_path / "t", *numbered(2000), files=1, group_rows=100)), cache_bytes=38_400
    )
    batches: list[Rows] = list(feed.span(rank=0, world_size=1))
    assert all(isinstance(_owner(batch.features), pa.Buffer) for batch in batches)
    assert len(feed._read._held) == 0
    list(feed.chunks(plan_batches(2000, batch_rows=8, world_size=1), rank=0, seed=0, epoch=0, shuffle=True))
    assert len(feed._read._held) == 16  # of 20, with 100 rows × (16 + 8) bytes


def _owner(array: np.ndarray) -> object:
    """Whose memory an array shows."""
    base: object = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base


def _files(dataset: object) -> tuple[DataFile, ...]:
    from ml_platform.store.manifest import dataset_files

    return dataset_files(dataset)  # type: ignore[arg-type]


def _file(path: Path, rows: int) -> DataFile:
    return DataFile(uri=path.as_uri(), rows=rows, bytes=path.stat().st_size, checksum="")


def test_corrupt_row_group_names_the_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    dataset = packed_dataset(
        tmp_path / "t", random.normal(size=(400, 64)).astype(np.float32), np.zeros(400, np.int32)
    )
    path = tmp_path / "t" / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)
    feed = open_feed(dataset)
    with pytest.raises(DataError, match=r"part-00000.parquet: row group 0 cannot be read"):
        list(feed.span(rank=0, world_size=1))


def test_file_that_is_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        Feed([_file(path, 1)])


def test_columns_that_are_not_packed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"label": [1], "features": [[1.0]]}), path)
    with pytest.raises(SpecError, match="is not packed"):
        Feed([_file(path, 1)])
    parquet.write_table(pa.table({"label": [1], "x": [1.0]}), path)
    with pytest.raises(SpecError, match="is not a packed data set") as caught:
        Feed([_file(path, 1)])
    assert "name numeric columns with `features`" in str(caught.value)


def test_file_with_other_rows_than_the_manifest_says(tmp_path: Path) -> None:
    packed_dataset(tmp_path / "t", *numbered(10), files=1)
    with pytest.raises(DataError, match="not what its manifest says"):
        Feed([_file(tmp_path / "t" / "part-00000.parquet", 11)])


def test_label_that_is_no_class_stops_training(tmp_path: Path) -> None:
    features, labels = numbered(64)
    labels[13] = -1
    feed = open_feed(packed_dataset(tmp_path / "t", features, labels))
    batching = plan_batches(64, batch_rows=64, world_size=1)
    with pytest.raises(DataError, match="label that is not a class"):
        list(feed.batches(batching, rank=0, seed=0, epoch=0, shuffle=False))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("groups", [(700,), (300, 300, 100), (1,) * 50 + (650,)])
def test_large_row_groups_are_read_in_pieces_with_the_same_global_batches(
    tmp_path: Path, shuffle: bool, groups: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that the cache cannot hold: no row twice, the same batches for any ranks, little held."""
    monkeypatch.setattr("ml_platform.worker.row_groups.LEAST_ROWS", 64)
    monkeypatch.setattr("ml_platform.worker.row_groups.PIECE_BYTES", 0)
    features, labels = numbered(700)
    path = tmp_path / "t.parquet"
    table = pa.table({"label": labels, "a": features[:, 0]})
    with parquet.ParquetWriter(path, table.schema) as writer:
        start = 0
        for rows in groups:
            writer.write_table(table.slice(start, rows), row_group_size=rows)
            start += rows

    def feed() -> Feed:
        return Feed([_file(path, 700)], Columns(("a",)), cache_bytes=1400)

    one = global_batches(feed(), 1, shuffle=shuffle)
    assert one == global_batches(feed(), 2, shuffle=shuffle) == global_batches(feed(), 4, shuffle=shuffle)
    rows = [row for batch in one for row in batch]
    assert len(set(rows)) == len(rows) == 21 * 32
    whole = np.concatenate(
        [part.labels for rank in range(3) for part in feed().span(rank=rank, world_size=3)]
    )
    assert whole.tolist() == list(range(700))
    used = feed()
    list(used.span(rank=0, world_size=1))
    assert used._read._bytes <= 1400


def test_columns_of_anyones_table_become_a_matrix(tmp_path: Path) -> None:
    """In the order in which they are named, whatever their numeric type; weights and values beside them."""
    folder = tmp_path / "their table"
    folder.mkdir()
    for number in range(2):
        first = number * 40
        ids = np.arange(first, first + 40)
        table = pa.table(
            {
                "i8": pa.array(ids, pa.int8()),
                "u16": pa.array(ids, pa.uint16()),
                "f64": pa.array(ids / 4, pa.float64()),
                "flag": pa.array(ids % 2 == 0),
                "text": [str(i) for i in ids],
                "price": pa.array(ids / 2, pa.float64()),
                "w": pa.array(ids + 1, pa.int64()),
            }
        )
        parquet.write_table(table, folder / f"{number}.parquet", row_group_size=15)
    (folder / "_SUCCESS").touch()
    feed = open_feed(folder, Columns(("flag", "f64", "i8", "u16"), "price", "w"))
    assert (feed.rows, feed.width, feed.has_classes) == (80, 4, False)
    rows = list(feed.span(rank=0, world_size=1))
    features = np.concatenate([part.features for part in rows])
    ids = np.arange(80)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, np.stack([ids % 2 == 0, ids / 4, ids, ids], axis=1))
    np.testing.assert_array_equal(np.concatenate([part.labels for part in rows]), ids / 2)
    np.testing.assert_array_equal(np.concatenate([part.weights for part in rows]), ids + 1)
    batching = plan_batches(80, batch_rows=16, world_size=1)
    for batch in feed.batches(batching, rank=0, seed=1, epoch=0, shuffle=True):
        np.testing.assert_array_equal(batch.features[:, 2], batch.labels * 2)
        np.testing.assert_array_equal(batch.weights, batch.labels * 2 + 1)
    assert open_feed(f"{folder}/1.parquet", Columns(("i8",), None)).rows == 40


@pytest.mark.parametrize(
    ("column", "columns", "error", "message"),
    [
        (pa.array([1.0, None]), Columns(("a",), "b"), DataError, "empty values in column 'a'"),
        (pa.array([1.0, 2.0]), Columns(("b",), "a", "c"), SpecError, "no column 'c'"),
        (pa.array(["x", "y"]), Columns(("a",), "b"), SpecError, "column 'a' of .* is not numeric"),
        (pa.array(["x", "y"]), Columns(("b",), "a"), SpecError, "column 'a' of .* is not numeric"),
        (pa.array([1 << 40, 2]), Columns(("b",), "a"), DataError, "labels that are no classes"),
    ],
)
def test_columns_that_cannot_serve_are_named(
    tmp_path: Path, column: pa.Array, columns: Columns, error: type[Exception], message: str
) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"a": column, "b": [1, 2]}), path)
    with pytest.raises(error, match=message):
        list(open_feed(path, columns).span(rank=0, world_size=1))


def test_folder_without_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    with pytest.raises(DataError, match="there is no Parquet file in file://"):
        open_feed(tmp_path, Columns(("a",)))


def test_steps_are_equal_whatever_the_files(tmp_path: Path) -> None:
    """One file with one row, one with 199: both ranks take the same steps of the same size."""
    for number, rows in enumerate((1, 199)):
        features, labels = numbered(rows)
        parquet.write_table(
            pa.table({"label": labels, "a": features[:, 0]}),
            tmp_path / f"{number}.parquet",
            row_group_size=70,
        )
    feed = open_feed(tmp_path, Columns(("a",)))
    batching = plan_batches(feed.rows, batch_rows=32, world_size=2)
    shapes = [
        [rows.features.shape for rows in feed.batches(batching, rank=rank, seed=0, epoch=0, shuffle=True)]
        for rank in range(2)
    ]
    assert shapes == [[(16, 1)] * 6] * 2
    assert batching.dropped == 8
