"""Keras callbacks of the user: which of them run on which rank. Imported in ranks alone."""

from __future__ import annotations

from typing import Any

import keras

from ml_platform.errors import SpecError

_WRITERS = (
    "CSVLogger",
    "ModelCheckpoint",
    "OrbaxCheckpoint",
    "ProgbarLogger",
    "RemoteMonitor",
    "TensorBoard",
)


def admitted(callbacks: Any, *, rank: int) -> list[Any]:
    """Callbacks that run on this rank, flat and in order.

    Keras' callbacks that write files or talk to servers run on rank 0 alone; all others on every rank.

    Raises:
        SpecError: One is no callback, or would do on one rank what all must do together.
    """
    flat = _flat(callbacks)
    for callback in flat:
        _check(callback)
    return [callback for callback in flat if rank == 0 or not isinstance(callback, _writers())]


def _flat(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return list(keras.tree.flatten(callbacks))


def _check(callback: Any) -> None:
    name = type(callback).__name__
    if not isinstance(callback, keras.callbacks.Callback):
        raise SpecError(f"{name} is no Keras callback", wanted="keras.callbacks.Callback", got=callback)
    if isinstance(callback, keras.callbacks.BackupAndRestore):
        raise SpecError(
            "BackupAndRestore would bring back the state of one rank alone",
            hint="rank.fit(…, checkpoint_every_epochs=1) with Horovod(max_restarts=1)",
        )
    if any(kind.__module__.partition(".")[0] == "horovod" for kind in type(callback).__mro__):
        raise SpecError(
            f"Horovod's {name} does not work with Keras 3",
            hint="leave it out: rank.fit broadcasts, averages metrics and, with `warmup_epochs`, warms up",
        )


def _writers() -> tuple[type[Any], ...]:
    return tuple(getattr(keras.callbacks, name) for name in _WRITERS if hasattr(keras.callbacks, name))
