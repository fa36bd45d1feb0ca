"""Streams packed Parquet to a rank: never a whole table, no copy before the batch is put together.

A packed data set has an integer column `label` and a column `features` of fixed-size binary, each value
`width` little-endian float32.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ml_platform.errors import DataError, SpecError
from ml_platform.worker.lanes import Batching, Lane, Range, RowGroup, plan_epoch, plan_span

if TYPE_CHECKING:
    from ml_platform.specs.references import Dataset

BUFFER_ROWS = 2048
"""Rows of one lane that are mixed with each other."""
CACHE_BYTES = 512 << 20
"""Decoded row groups that are kept, per rank. At least one is."""
EVALUATION_ROWS = 4096
"""Rows per step when each row is read once."""


class File(Protocol):
    """A Parquet file of a data set."""

    @property
    def uri(self) -> str: ...

    @property
    def rows(self) -> int: ...


class Rows(NamedTuple):
    """`features` of shape (rows, width), float32; `labels` of shape (rows,), int32."""

    features: NDArray[np.float32]
    labels: NDArray[np.int32]


class Feed:
    """One data set, as one rank reads it.

    Args:
        files: Of the data set, in the manifest's order.
    Raises:
        DataError: A file is missing, corrupt or not packed.
    """

    def __init__(self, files: Iterable[File], *, cache_bytes: int = CACHE_BYTES) -> None:
        self.groups: tuple[RowGroup, ...] = ()
        self.width = 0
        self._cache: OrderedDict[RowGroup, Rows] = OrderedDict()
        self._cached_bytes = 0
        self._cache_bytes = cache_bytes
        for file in files:
            self._add(file)

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.groups)

    def batches(
        self, batching: Batching, *, rank: int, seed: int, epoch: int, shuffle: bool
    ) -> Iterator[Rows]:
        """This rank's share of each global batch of one epoch.

        Yields:
            `batching.steps` times: features (share, width), labels (share,).
        Raises:
            DataError: A file is corrupt, or a label is not a class.
        """
        lanes = plan_epoch(self.groups, batching, rank=rank, seed=seed, epoch=epoch, shuffle=shuffle)
        streams = [_in_pieces(self._lane(lane), batching.lane_rows) for lane in lanes]
        for parts in zip(*streams, strict=True):
            rows = _joined(parts)
            if rows.labels.min() < 0:
                raise DataError(
                    "a row to train on has a label that is not a class", got=int(rows.labels.min())
                )
            yield rows

    def span(self, *, rank: int, world_size: int, batch_rows: int = EVALUATION_ROWS) -> Iterator[Rows]:
        """This rank's part of all rows, each exactly once over all ranks, in the manifest's order."""
        for part in plan_span(self.groups, rank=rank, world_size=world_size):
            rows = self._read(part)
            for start in range(0, part.rows, batch_rows):
                yield Rows(rows.features[start : start + batch_rows], rows.labels[start : start + batch_rows])

    def _add(self, file: File) -> None:
        parquet = _open(file.uri)
        try:
            width = _packed_width(parquet.schema_arrow, file.uri)
            metadata = parquet.metadata
            groups = [
                RowGroup(file.uri, i, metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups)
            ]
        finally:
            parquet.close()
        if sum(group.rows for group in groups) != file.rows:
            raise DataError(
                f"{file.uri} is not what its manifest says",
                wanted=f"{file.rows} rows",
                got=f"{sum(group.rows for group in groups)} rows",
            )
        if self.width not in (0, width):
            raise DataError(f"{file.uri} has rows of another width", wanted=self.width, got=width)
        self.width = width
        self.groups += tuple(group for group in groups if group.rows)

    def _lane(self, lane: Lane) -> Iterator[Rows]:
        pieces = (self._read(part) for part in lane.ranges)
        return pieces if lane.seed is None else _mixed(pieces, lane.seed)

    def _read(self, part: Range) -> Rows:
        rows = self._decoded(part.group)
        end = part.offset + part.rows
        return Rows(rows.features[part.offset : end], rows.labels[part.offset : end])

    def _decoded(self, group: RowGroup) -> Rows:
        rows = self._cache.pop(group, None)
        if rows is None:
            rows = _decode(group, self.width)
            self._cached_bytes += rows.features.nbytes + rows.labels.nbytes
        self._cache[group] = rows
        while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= oldest.features.nbytes + oldest.labels.nbytes
        return rows


def open_feed(dataset: Dataset) -> Feed:
    """The feed of a data set of the store.

    Raises:
        DataError: It has no packed features, or a file is missing or corrupt.
    """
    from ml_platform.store.manifest import dataset_files

    return Feed(dataset_files(dataset))


def _mixed(pieces: Iterable[Rows], seed: tuple[int, int, int]) -> Iterator[Rows]:
    """Mix rows within a bounded buffer: half of it leaves whenever it is full."""
    random = np.random.default_rng(seed)
    held: list[Rows] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece.labels)
        if count >= BUFFER_ROWS:
            mixed = _permuted(_joined(held), random)
            leaving = count - BUFFER_ROWS // 2
            yield Rows(mixed.features[:leaving], mixed.labels[:leaving])
            held = [Rows(mixed.features[leaving:], mixed.labels[leaving:])]
            count -= leaving
    if count:
        yield _permuted(_joined(held), random)


def _permuted(rows: Rows, random: np.random.Generator) -> Rows:
    order = random.permutation(len(rows.labels))
    return Rows(rows.features[order], rows.labels[order])


def _in_pieces(pieces: Iterable[Rows], rows: int) -> Iterator[Rows]:
    """The same rows, `rows` at a time; views wherever a piece holds enough."""
    held: list[Rows] = []
    count = 0
    for piece in pieces:
        start = 0
        while count + len(piece.labels) - start >= rows:
            end = start + rows - count
            held.append(Rows(piece.features[start:end], piece.labels[start:end]))
            yield _joined(held)
            held, count, start = [], 0, end
        if start < len(piece.labels):
            held.append(Rows(piece.features[start:], piece.labels[start:]))
            count += len(piece.labels) - start


def _joined(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return Rows(np.concatenate([p.features for p in parts]), np.concatenate([p.labels for p in parts]))


def _open(uri: str) -> Any:
    import pyarrow as pa

    from ml_platform.store.parquet_files import open_parquet

    try:
        return open_parquet(uri, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{uri} cannot be read as Parquet", got=error) from error


def _packed_width(schema: Any, uri: str) -> int:
    import pyarrow as pa

    names = set(schema.names)
    if not {"label", "features"} <= names:
        raise SpecError(
            f"{uri} is not a packed data set",
            wanted="columns label and features",
            got=", ".join(schema.names),
            hint="apply features to the table first",
        )
    kind = schema.field("features").type
    if not pa.types.is_fixed_size_binary(kind) or kind.byte_width % 4 or not kind.byte_width:
        raise SpecError(f"{uri} is not packed", wanted="features as fixed-size binary of float32", got=kind)
    return int(kind.byte_width // 4)


def _decode(group: RowGroup, width: int) -> Rows:
    import pyarrow as pa

    parquet = _open(group.uri)
    try:
        table = parquet.read_row_group(group.number, columns=["label", "features"])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{group.uri}: row group {group.number} cannot be read", got=error) from error
    finally:
        parquet.close()
    column, labels = table.column("features"), table.column("label")
    if column.null_count or labels.null_count:
        raise DataError(f"{group.uri}: row group {group.number} has empty labels or features")
    parts = [_view(chunk, width) for chunk in column.chunks]
    features = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return Rows(features, labels.to_numpy().astype(np.int32, copy=False))


def _view(chunk: Any, width: int) -> NDArray[np.float32]:
    flat = np.frombuffer(chunk.buffers()[1], "<f4", count=len(chunk) * width, offset=chunk.offset * width * 4)
    return flat.reshape(len(chunk), width)
