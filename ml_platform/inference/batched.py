"""Calls of a traced network in batches of a few constant sizes, the best of which is measured.

A network that is traced for a shape is traced again for every other one. So the last rows are padded to the
next size, and their extra outputs are dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZES = (16, 64, 256, 1024, 4096)
"""Rows of a call."""
WORTH_TRYING = 256
"""Smaller sizes serve the last rows alone: below it most of the time is spent around the call."""
MOST_BYTES = 32 << 20
"""Of one call's input: bounds the memory of activations."""
BETTER = 1.05
"""A larger batch must be this much faster."""

Arrays = Sequence["NDArray[Any]"]
Call = Callable[[Arrays], Arrays]


class Batched:
    """A function of arrays, called for any number of rows.

    Args:
        call: Takes and gives arrays whose first axis is the rows.
        row_bytes: Of one row's input.
    """

    def __init__(self, call: Call, row_bytes: int) -> None:
        self._call = call
        self._sizes = [size for size in SIZES if size * row_bytes <= MOST_BYTES] or [SIZES[0]]
        self.size: int | None = None
        """Rows of a call, once that has been measured."""

    def __call__(self, arrays: Arrays) -> list[NDArray[Any]]:
        """Outputs for all rows. At least one row."""
        import numpy as np

        rows = len(arrays[0])
        if self.size is None and rows >= self._sizes[-1]:
            self.size = self._measured([array[: self._sizes[-1]] for array in arrays])
        most = self.size or self._sizes[-1]
        pieces = [self._piece(arrays, start, min(start + most, rows)) for start in range(0, rows, most)]
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]

    def _piece(self, arrays: Arrays, start: int, end: int) -> Arrays:
        """One call: padded to the next size."""
        import numpy as np

        rows = end - start
        size = next(size for size in self._sizes if size >= rows)
        given = [array[start:end] for array in arrays]
        if rows < size:
            given = [np.concatenate([array, np.repeat(array[-1:], size - rows, axis=0)]) for array in given]
        return [np.asarray(output)[:rows] for output in self._call(given)]

    def _measured(self, arrays: Arrays) -> int:
        """The size that handles most rows per second of processor time; of equal ones the smallest.

        Processor time, as others may be at work too.
        """
        best, fastest = self._sizes[-1], 0.0
        for size in [size for size in self._sizes if size >= WORTH_TRYING] or self._sizes[-1:]:
            self._piece(arrays, 0, size)  # traces
            began = time.process_time()
            for start in range(0, len(arrays[0]), size):
                self._piece(arrays, start, min(start + size, len(arrays[0])))
            speed = len(arrays[0]) / max(time.process_time() - began, 1e-9)
            if speed > fastest * BETTER:
                best, fastest = size, speed
        return best
