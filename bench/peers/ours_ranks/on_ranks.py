"""What runs on ranks."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import network


def trained(rank: Any, folder: str, rows: int, epochs: int, lost: str) -> list[float]:
    """Seconds of each epoch, and the fingerprint of the weights.

    Args:
        rows: Per rank and step.
        lost: A file that rank 1 makes in the middle of its second epoch, and dies; where it is, nobody does.
    """
    import keras

    class Dying(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if rank.rank == 1 and self.epoch == 1 and batch == 5 and not Path(lost).exists():
                Path(lost).touch()
                os.kill(os.getpid(), signal.SIGKILL)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch

    model = network.build()
    model.compile("sgd", loss=network.loss())
    history = rank.fit(
        model,
        folder,
        batch_rows=rows * rank.world_size,
        epochs=epochs,
        checkpoint_every_epochs=1 if lost else None,
        callbacks=[Dying()] if lost else [],
    )
    shares = [rows * rank.world_size * history.steps / rate for rate in history.rows_per_second]
    return [network.fingerprint(model), *shares]
