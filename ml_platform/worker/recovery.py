"""Where a fit goes on after its gang was restarted: what is kept after an epoch, and brought back.

Imported in ranks alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from ml_platform.worker.checkpoints import Checkpoint, Shelf, unpacked
from ml_platform.worker.collective import Collective, gather_json
from ml_platform.worker.proof import variables_of

if TYPE_CHECKING:
    from ml_platform.worker.feed import Feed
    from ml_platform.worker.fit_spec import FitSpec
    from ml_platform.worker.rank import Rank
    from ml_platform.worker.watch import Watch


class Progress:
    """How far a fit is, across restarts of its gang. Every rank has one; its methods are collective.

    Attributes:
        epoch: The next one, from 0.
        is_over: An earlier gang finished the fit.
    """

    def __init__(self, rank: Rank, model: Any, train: Feed, spec: FitSpec) -> None:
        self._rank, self._model, self._spec = rank, model, spec
        self._shelf = _shelf(rank, model, train, spec)
        self._found: Checkpoint | None = None
        self.epoch, self.is_over = spec.initial_epoch, False

    def find(self) -> None:
        """Look for the newest checkpoint, and give the model its weights and optimizer variables.

        Raises:
            StoreError: The store cannot be read.
        """
        if self._shelf is None:
            return
        content = None
        if self._rank.rank == 0:
            content, torn = self._shelf.newest()
            for key in torn:
                self._rank.log(f"checkpoint {key} is cut short; the one before it is used")
        content = _shared(self._rank.collective, content)
        self._found = None if content is None else unpacked(content)
        if self._found is None:
            return
        for variable, value in zip(variables_of(self._model), self._found.arrays, strict=False):
            variable.assign(value)
        self.epoch, self.is_over = self._found.facts["epoch"], self._found.facts["is_over"]
        self._rank.log(f"goes on after epoch {self.epoch}, from a checkpoint")

    def bring_back(self, watch: Watch, callbacks: Sequence[Any]) -> None:
        """Give the watch and the callbacks the state that they had. After their `on_train_begin`."""
        if self._found is None:
            return
        facts, arrays = self._found.facts, self._found.arrays
        for name, value in facts["watch"].items():
            setattr(watch, name, value)
        if facts["best_weights"] is not None:
            watch.best_weights = [arrays[number] for number in facts["best_weights"]]
        for name, callback in _named(callbacks):
            vars(callback).update(_opened(facts["callbacks"].get(name, {}), arrays))

    def keep(self, epoch: int, watch: Watch, callbacks: Sequence[Any], *, is_over: bool) -> None:
        """Leave a checkpoint where one is due: after so many epochs, and after the last.

        Raises:
            StoreError: The store refuses it.
        """
        every = self._spec.checkpoint_every_epochs
        if self._shelf is None or every is None or self._rank.rank != 0:
            return
        if is_over or (epoch + 1) % every == 0:
            self._shelf.put(epoch + 1, self._state(epoch + 1, watch, callbacks, is_over=is_over))

    def _state(self, epoch: int, watch: Watch, callbacks: Sequence[Any], *, is_over: bool) -> Checkpoint:
        arrays = [variable.numpy() for variable in variables_of(self._model)]
        best = None if watch.best_weights is None else _shelved(watch.best_weights, arrays)
        facts = {
            "epoch": epoch,
            "is_over": is_over,
            "watch": {
                "metrics": watch.metrics,
                "rows_per_second": watch.rows_per_second,
                "best_loss": watch.best_loss,
                "best_epoch": watch.best_epoch,
            },
            "best_weights": best,
            "callbacks": {name: _plain(callback, arrays) for name, callback in _named(callbacks)},
        }
        return Checkpoint(facts, arrays)


def _shelf(rank: Rank, model: Any, train: Feed, spec: FitSpec) -> Shelf | None:
    """Where this fit's checkpoints lie: another fit, model, table or spec has others."""
    if rank.checkpoint_uri is None or spec.checkpoint_every_epochs is None:
        return None
    shapes = [[list(variable.shape), str(variable.dtype)] for variable in variables_of(model)]
    made_of = [asdict(spec), shapes, train.rows, train.width, rank.world_size]
    digest = hashlib.sha256(json.dumps(made_of, default=str).encode()).hexdigest()[:16]
    return Shelf(rank.checkpoint_uri, f"fit-{rank.fits}-{digest}")


def _shared(collective: Collective, content: bytes | None) -> bytes | None:
    """Rank 0's bytes on every rank."""
    size: int = gather_json(collective, -1 if content is None else len(content))[0]
    if size < 0:
        return None
    own = np.frombuffer(content, np.uint8) if content is not None else np.zeros(size, np.uint8)
    return collective.broadcast(own).tobytes()


def _named(callbacks: Sequence[Any]) -> list[tuple[str, Any]]:
    """Callbacks by a name that does not depend on which others run on this rank."""
    kinds = [type(callback).__qualname__ for callback in callbacks]
    return [(f"{kind}-{kinds[:at].count(kind)}", callbacks[at]) for at, kind in enumerate(kinds)]


_NOT_STATE = frozenset({"_model", "model", "params", "validation_data"})


def _plain(callback: Any, arrays: list[NDArray[Any]]) -> dict[str, list[Any]]:
    """What of a callback's state is numbers, texts, lists of them, arrays or operations of Keras.

    Arrays are put aside. The operation by which `EarlyStopping` and its like compare is set in their first
    epoch, along with the sign of `min_delta`: one without the other would turn the sign again.
    """
    out: dict[str, list[Any]] = {}
    for name, value in vars(callback).items():
        if name in _NOT_STATE:
            continue
        if _is_json(value):
            out[name] = ["value", value]
        elif (operation := getattr(value, "__name__", "")) and vars(keras.ops).get(operation) is value:
            out[name] = ["operation", operation]
        elif isinstance(value, np.ndarray):
            out[name] = ["array", _shelved([value], arrays)[0]]
        elif isinstance(value, list) and value and all(isinstance(item, np.ndarray) for item in value):
            out[name] = ["arrays", _shelved(value, arrays)]
    return out


def _opened(state: Mapping[str, list[Any]], arrays: Sequence[NDArray[Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, (kind, value) in state.items():
        if kind == "value":
            out[name] = value
        elif kind == "operation":
            out[name] = vars(keras.ops)[value]
        elif kind == "array":
            out[name] = arrays[value].copy()
        else:
            out[name] = [arrays[number].copy() for number in value]
    return out


def _shelved(values: Sequence[NDArray[Any]], arrays: list[NDArray[Any]]) -> list[int]:
    first = len(arrays)
    arrays.extend(values)
    return list(range(first, len(arrays)))


def _is_json(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_json(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    return value is None or isinstance(value, bool | int | float | str | np.floating | np.integer | np.bool_)
