"""The time that a part of a compiled step takes. Imports TensorFlow: imported in ranks alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Work = Callable[[Sequence[Any]], list[Any]]


class GraphStopwatch:
    """Two timestamps and an addition per step, on the CPU.

    The time begins when all gradients are there: a grouped allreduce waits for them anyway.
    """

    def __init__(self) -> None:
        with tf.init_scope(), tf.device("/CPU:0"):
            self._seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="allreduce_s")

    @property
    def seconds(self) -> float:
        return float(self._seconds)

    def timed(self, work: Work, gradients: Sequence[Any]) -> list[Any]:
        """What `work` makes of the gradients. None stays None, sparse stays sparse."""
        given = [gradient for gradient in gradients if gradient is not None]
        with tf.control_dependencies(given), tf.device("/CPU:0"):
            begun = tf.timestamp()
        with tf.control_dependencies([begun]):
            made = work([None if gradient is None else _after(gradient) for gradient in gradients])
        with tf.control_dependencies([value for value in made if value is not None]), tf.device("/CPU:0"):
            self._seconds.assign_add(tf.timestamp() - begun)
        return made


def _after(gradient: Any) -> Any:
    """The same gradient, behind the control dependencies of this place."""
    if isinstance(gradient, tf.IndexedSlices):
        values, indices = tf.identity(gradient.values), tf.identity(gradient.indices)
        return tf.IndexedSlices(values, indices, gradient.dense_shape)
    return tf.identity(gradient)
