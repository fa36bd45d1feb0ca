"""What ranks do together, behind one interface: alone, or over Horovod."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ml_platform.worker.graph_stopwatch import GraphStopwatch

PATIENCE_S = 60.0
"""How long a rank waits for the others without a word. Over Gloo Horovod itself says nothing, ever."""


class Collective(Protocol):
    """Every rank makes the same calls in the same order."""

    rank: int
    size: int

    @property
    def allreduce_s(self) -> float:
        """Seconds that this rank has spent averaging gradients, waiting for other ranks included."""

    def average_gradients(self, gradients: Sequence[Any]) -> list[Any]:
        """The mean of each gradient over all ranks. None stays None, sparse stays sparse."""

    def broadcast(self, value: NDArray[Any]) -> NDArray[Any]:
        """Rank 0's array. Shapes and types are equal on all ranks."""

    def gather(self, value: NDArray[Any]) -> list[NDArray[Any]]:
        """Every rank's array, by rank. They may differ in length along the first axis."""

    def close(self) -> None:
        """Leave. A rank that failed calls it at once, so that others fail too instead of waiting."""


class Alone:
    """World size 1: needs neither Horovod nor a network."""

    rank = 0
    size = 1
    allreduce_s = 0.0

    def average_gradients(self, gradients: Sequence[Any]) -> list[Any]:
        return list(gradients)

    def broadcast(self, value: NDArray[Any]) -> NDArray[Any]:
        return value

    def gather(self, value: NDArray[Any]) -> list[NDArray[Any]]:
        return [value]

    def close(self) -> None:
        """Nothing to leave."""


class Horovod:
    """Ranks joined by Horovod, from the environment that the driver half set.

    Opening it blocks until every rank has arrived.

    Args:
        tell: Hears of a long wait.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        import horovod.tensorflow as hvd

        self._hvd = hvd
        self._tell = tell
        hvd.init()
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self._stopwatch: GraphStopwatch | None = None

    @property
    def allreduce_s(self) -> float:
        return 0.0 if self._stopwatch is None else self._stopwatch.seconds

    def average_gradients(self, gradients: Sequence[Any]) -> list[Any]:
        from ml_platform.worker.graph_stopwatch import GraphStopwatch

        self._stopwatch = self._stopwatch or GraphStopwatch()
        return self._stopwatch.timed(self._averaged, gradients)

    def _averaged(self, gradients: Sequence[Any]) -> list[Any]:
        import tensorflow as tf

        hvd = self._hvd
        out: list[Any] = list(gradients)
        # One call for all dense ones of a type, each sparse one by itself: in a mixed list Horovod pairs the
        # shapes of dense tensors with the wrong ones, and dense copies of sparse gradients change Adam. All
        # have names of ours: Horovod would name them after layers, and a rank that built another model
        # before has other layer names, so that ranks would wait for each other for good.
        dense = [i for i, g in enumerate(out) if g is not None and not isinstance(g, tf.IndexedSlices)]
        for kind in dict.fromkeys(out[i].dtype for i in dense):
            alike = [i for i in dense if out[i].dtype == kind]
            name = f"gradients_{kind.name}"
            reduced = hvd.grouped_allreduce([out[i] for i in alike], op=hvd.Average, name=name)
            for i, gradient in zip(alike, reduced, strict=True):
                out[i] = gradient
        for i, gradient in enumerate(out):
            if isinstance(gradient, tf.IndexedSlices):
                out[i] = self._average_sparse(gradient, f"gradient_{i}")
        return out

    def _average_sparse(self, gradient: Any, name: str) -> Any:
        import tensorflow as tf

        values = self._hvd.allgather(gradient.values, name=f"{name}_values")
        indices = self._hvd.allgather(gradient.indices, name=f"{name}_indices")
        return tf.IndexedSlices(values / tf.cast(self.size, values.dtype), indices, gradient.dense_shape)

    def broadcast(self, value: NDArray[Any]) -> NDArray[Any]:
        import tensorflow as tf

        with self._telling():
            received: NDArray[Any] = self._hvd.broadcast(tf.constant(value), root_rank=0).numpy()
        return received

    def gather(self, value: NDArray[Any]) -> list[NDArray[Any]]:
        import numpy as np
        import tensorflow as tf

        with self._telling():
            lengths = self._hvd.allgather(tf.constant([len(value)], tf.int64)).numpy()
            if not lengths.sum():
                return [value[:0]] * self.size
            joined = self._hvd.allgather(tf.constant(value)).numpy()
        return list(np.split(joined, np.cumsum(lengths)[:-1]))

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Say that this rank waits, if it does so for long: perhaps for one that is in another step."""
        said = (
            f"rank {self.rank} has waited {PATIENCE_S:g} s for another rank, and goes on waiting: "
            "do all ranks take the same number of steps?"
        )
        timer = threading.Timer(PATIENCE_S, self._tell, [said])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        self._hvd.shutdown()


def open_collective(world_size: int, tell: Callable[[str], None]) -> Collective:
    """Join the other ranks; with none there is nothing to join.

    Args:
        tell: Hears that this rank has waited long for the others.
    """
    return Alone() if world_size == 1 else Horovod(tell)


def total(collective: Collective, values: Sequence[float]) -> NDArray[np.float64]:
    """The sum of each value over all ranks, added in the order of ranks: the same bits on every rank.

    Returns:
        Shape (len(values),), float64.
    """
    import numpy as np

    rows = collective.gather(np.asarray([values], dtype=np.float64))
    out: NDArray[np.float64] = np.sum(np.concatenate(rows), axis=0)
    return out


def gather_json(collective: Collective, value: object) -> list[Any]:
    """Every rank's value, by rank. JSON, because whoever is on the network could send a pickle."""
    import numpy as np

    encoded = np.frombuffer(json.dumps(value).encode(), np.uint8)
    return [json.loads(part.tobytes()) for part in collective.gather(encoded)]
