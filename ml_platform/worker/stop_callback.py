"""Ends a fit by a rule on its validation losses. Imported in ranks alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras


class StopByRule(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Ends the fit after an epoch at which the rule says so.

    Every rank sees the same losses, so all decide alike.

    Args:
        stop: Given the validation losses up to now, whether to end.
    """

    def __init__(self, stop: Callable[[Sequence[float]], bool]) -> None:
        super().__init__()
        self._stop = stop
        self._losses: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._losses.append(float((logs or {})["val_loss"]))
        if self._stop(self._losses):
            self.model.stop_training = True
