"""What runs on ranks."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import network

DIES_IN = 1
"""The epoch in which a rank dies, from 0."""


def trained(rank: Any, folder: str, rows: int, epochs: int, **more: Any) -> list[float]:
    """Fingerprint of the weights, and the seconds of each epoch; `rows` per rank and step."""
    model = network.build()
    model.compile("sgd", loss=network.loss())
    batch = rows * rank.world_size
    history = rank.fit(model, folder, batch_rows=batch, epochs=epochs, **more)
    return [network.fingerprint(model), *(batch * history.steps / rate for rate in history.rows_per_second)]


def checked(rank: Any, folder: str, rows: int, epochs: int) -> dict[str, float]:
    """Seconds of the epochs of a fit as it is by default, those of its checks, and how many there were."""
    model = network.build()
    model.compile("sgd", loss=network.loss())
    batch = rows * rank.world_size
    history = rank.fit(model, folder, batch_rows=batch, epochs=epochs)
    seconds = sum(batch * history.steps / rate for rate in history.rows_per_second)
    return {"seconds": seconds, "checks_s": history.check_seconds, "checks": history.checks}


def survived(rank: Any, folder: str, rows: int, epochs: int, diary: str, dies_after: int) -> list[float]:
    """The same with a checkpoint after each epoch, and a rank that dies once, in the second one.

    Args:
        diary: A folder. Rank 0 writes there when it ended which step of which epoch, the other when it died.
        dies_after: The step, from 0.
    """
    import keras

    steps, death = Path(diary, "steps"), Path(diary, "death")

    class Diary(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if rank.rank == 0:
                with steps.open("a") as file:
                    file.write(f"{time.time()} {self.epoch} {batch}\n")
            elif (self.epoch, batch) == (DIES_IN, dies_after) and not death.exists():
                death.write_text(str(time.time()))
                os.kill(os.getpid(), signal.SIGKILL)

    return trained(rank, folder, rows, epochs, checkpoint_every_epochs=1, callbacks=[Diary()])
