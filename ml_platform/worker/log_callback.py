"""The Keras callback behind `LogCallback`. Imported in ranks alone."""

from __future__ import annotations

from typing import Any

import keras

from ml_platform.worker.driver_log import log_to_driver
from ml_platform.worker.main_function import current_rank


class DriverLog(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Prints the values of each epoch on the driver, as rank 0 sees them.

    Args:
        per_batch_log: Those of each batch as well.
    """

    def __init__(self, per_batch_log: bool = False) -> None:  # the original's name and position
        super().__init__()
        self._per_batch = per_batch_log
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._per_batch:
            self._tell(f"{self._place()}, batch {batch + 1}{_of(self.params.get('steps'))}", logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._tell(self._place(), logs)

    def _place(self) -> str:
        return f"epoch {self._epoch + 1}{_of(self.params.get('epochs'))}"

    def _tell(self, place: str, logs: dict[str, Any] | None) -> None:
        if current_rank().rank == 0:
            values = ", ".join(f"{name} {float(value):.4g}" for name, value in (logs or {}).items())
            log_to_driver(f"{place}: {values}")


def _of(total: int | None) -> str:
    return f"/{total}" if total else ""
