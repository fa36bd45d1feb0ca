"""Batches as a `tf.data` pipeline, one ahead of the step that uses it. Imported in ranks alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from ml_platform.errors import PlatformError
from ml_platform.worker.feed import Rows

Source = Callable[[], Iterator[Rows]]


@contextmanager
def stream(source: Source, *, width: int, rows: int | None) -> Iterator[Any]:
    """A `tf.data.Dataset` of (features, labels) for the code inside.

    An error of the source reaches the caller as it was raised: TensorFlow would hand on its text alone.

    Args:
        source: Called once per pass.
        width: Features per row.
        rows: Rows per batch; None where they vary.
    """
    faults: list[PlatformError] = []

    def batches() -> Iterator[tuple[Any, Any]]:
        try:
            yield from map(tuple, source())
        except PlatformError as error:
            faults.append(error)
            raise

    signature = (tf.TensorSpec((rows, width), tf.float32), tf.TensorSpec((rows,), tf.int32))
    try:
        yield tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(1)
    except tf.errors.OpError as error:
        if faults:
            raise faults[0] from error
        raise
