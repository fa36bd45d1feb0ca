"""A feed as a `tf.data` pipeline, ahead of the steps that use it. Imported in ranks alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from ml_platform.errors import PlatformError
from ml_platform.worker.columns import Rows
from ml_platform.worker.feed import Feed
from ml_platform.worker.lanes import Batching
from ml_platform.worker.memory import keep_freed_memory

Source = Callable[[], Iterator[Rows]]


@contextmanager
def steps_of(feed: Feed, chunks: Source, batching: Batching) -> Iterator[Any]:
    """A `tf.data.Dataset` of the steps in chunks of several; one chunk is made while another is used.

    Args:
        chunks: Called once per pass.
    """
    with _generated(feed, chunks, (None, batching.share)) as data:
        # Views of the chunk: `unbatch` would copy each step.
        steps = data.prefetch(1).flat_map(lambda *rows: tf.data.Dataset.from_tensor_slices(rows))
        yield steps.apply(tf.data.experimental.assert_cardinality(batching.steps))


@contextmanager
def batches_of(feed: Feed, batches: Source) -> Iterator[Any]:
    """A `tf.data.Dataset` of batches whose number and lengths are not known before."""
    with _generated(feed, batches, (None,)) as data:
        yield data.prefetch(1)


@contextmanager
def _generated(feed: Feed, source: Source, lead: tuple[int | None, ...]) -> Iterator[Any]:
    """An error of the source reaches the caller as it was raised: TensorFlow would hand on its text alone."""
    faults: list[PlatformError] = []
    sources = [source]  # TensorFlow never lets go of `rows`, and must not keep the feed's row groups with it

    def rows() -> Iterator[tuple[Any, ...]]:
        keep_freed_memory()
        try:
            for part in sources[0]():
                yield tuple(part) if part.weights is not None else part[:2]
        except PlatformError as error:
            faults.append(error)
            raise

    labels = tf.as_dtype(feed.layout.label_type)
    kinds = [tf.TensorSpec((*lead, feed.width), tf.float32), tf.TensorSpec(lead, labels)]
    if feed.columns.weight is not None:
        kinds.append(tf.TensorSpec(lead, tf.float32))
    options = tf.data.Options()
    # There is nothing to tune, and each pass would end only when the thread that tunes wakes again: at twice
    # the time that the pass took, at worst.
    options.autotune.enabled = False
    try:
        yield tf.data.Dataset.from_generator(rows, output_signature=tuple(kinds)).with_options(options)
    except tf.errors.OpError as error:
        if faults:
            raise faults[0] from error
        raise
    finally:
        sources.clear()
        faults.clear()
