"""Evaluation and prediction over all ranks: each row exactly once. Imported in ranks alone."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_platform.errors import DataError
from ml_platform.worker.columns import Rows
from ml_platform.worker.feed import Feed
from ml_platform.worker.metrics import global_values
from ml_platform.worker.pipeline import batches_of

if TYPE_CHECKING:
    from ml_platform.worker.rank import Rank


def evaluate(rank: Rank, model: Any, feed: Feed) -> dict[str, float]:
    """Loss and metrics of a compiled model over all rows, the same bits on every rank.

    Rows with a negative label (a class that was not trained on) are left out.

    Raises:
        DataError: No row is left.
    """
    return evaluate_apart(rank, model, feed)[0]


def evaluate_apart(rank: Rank, model: Any, feed: Feed) -> tuple[dict[str, float], dict[str, float]]:
    """As `evaluate`, and the same over the rows of this rank alone; empty where it has none.

    Raises:
        DataError: No row is left.
    """
    own, rows = _own_values(rank, model, feed)
    values = global_values(model, rank.collective, own, rows=rows)
    if not values:
        raise DataError("there is no row to evaluate on")
    return values, own


def predict(rank: Rank, model: Any, feed: Feed) -> NDArray[np.float32]:
    """Outputs for all rows, in the manifest's order: (rows, outputs) on rank 0, (0, outputs) elsewhere."""
    own = [
        np.asarray(model.predict_on_batch(rows.features), np.float32)
        for rows in feed.span(rank=rank.rank, world_size=rank.world_size)
    ]
    outputs = int(model.output_shape[-1])
    mine = np.concatenate([np.zeros((0, outputs), np.float32), *own])
    everyone = rank.collective.gather(mine)
    return np.concatenate(everyone) if rank.rank == 0 else mine[:0]


def _own_values(rank: Rank, model: Any, feed: Feed) -> tuple[dict[str, float], int]:
    counter = _Counter(classes=feed.has_classes)
    batches = counter.counted(feed.span(rank=rank.rank, world_size=rank.world_size))
    # Keras fails without a batch, so a rank without rows must not call it.
    first = next(batches, None)
    if first is None:
        return {}, 0
    with batches_of(feed, lambda: itertools.chain([first], batches)) as data, _calm():
        values = model.evaluate(data, verbose=0, return_dict=True)
    return {name: float(value) for name, value in values.items()}, counter.rows


@contextmanager
def _calm() -> Iterator[None]:
    """Keras warns of the end of any data whose length it was not told."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        yield


class _Counter:
    """Counts the rows that go by. Rows of classes that were not trained on count for nothing."""

    def __init__(self, *, classes: bool) -> None:
        self.rows = 0
        self._classes = classes

    def counted(self, batches: Iterable[Rows]) -> Iterator[Rows]:
        for batch in batches:
            known = batch.labels >= 0 if self._classes else np.ones(1, bool)
            kept = batch if known.all() else batch.part(known)
            if len(kept.labels):
                self.rows += len(kept.labels)
                yield kept
