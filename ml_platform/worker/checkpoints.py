"""Checkpoints of a fit in any store: whole or absent, the newest two. Rank 0 reads and writes them.

An object is a sha256 over the rest, the length of a JSON head, the head, and the bytes of arrays. One that
was cut short does not carry its digest, and the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_platform.errors import StoreError
from ml_platform.store.objects import Objects, open_objects

KEPT = 2
"""Checkpoints of a fit that stay: the newest, and the one before in case it is cut short."""

_LENGTH = struct.Struct(">Q")
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Checkpoint:
    """The state of a fit after an epoch. `facts` is JSON, `arrays` are what does not fit there."""

    facts: Mapping[str, Any]
    arrays: Sequence[NDArray[Any]]

    def packed(self) -> bytes:
        """As bytes, with a digest."""
        parts = [np.ascontiguousarray(array).tobytes() for array in self.arrays]
        kinds = [[array.dtype.name, list(array.shape)] for array in self.arrays]
        head = json.dumps({"facts": self.facts, "arrays": kinds}, default=_item).encode()
        body = b"".join([_LENGTH.pack(len(head)), head, *parts])
        return hashlib.sha256(body).digest() + body


def unpacked(content: bytes) -> Checkpoint | None:
    """The checkpoint in these bytes; None when they are not whole."""
    digest, body = content[:_DIGEST_BYTES], memoryview(content)[_DIGEST_BYTES:]
    if len(body) < _LENGTH.size or hashlib.sha256(body).digest() != digest:
        return None
    (length,) = _LENGTH.unpack(body[: _LENGTH.size])
    at = _LENGTH.size + length
    head = json.loads(bytes(body[_LENGTH.size : at]))
    arrays = []
    for name, shape in head["arrays"]:
        kind, count = _type(name), int(np.prod(shape))
        arrays.append(np.frombuffer(body, kind, count=count, offset=at).reshape(shape))
        at += count * kind.itemsize
    return Checkpoint(head["facts"], arrays)


class Shelf:
    """The checkpoints of one fit, below one key.

    Args:
        uri: Of the job's checkpoints.
        fit: Names the fit among those of its job, and what it is made of.
    """

    def __init__(self, uri: str, fit: str) -> None:
        self._objects: Objects = open_objects(uri)
        self._fit = fit

    def put(self, epoch: int, checkpoint: Checkpoint) -> None:
        """Keep the state after `epoch` epochs; older ones go.

        Raises:
            StoreError: The store refuses it. Those before it stay.
        """
        key = f"{self._fit}/epoch-{epoch:06d}"
        try:
            self._objects.write(key, checkpoint.packed())
            for old in self._keys()[:-KEPT]:
                self._objects.remove(old)
        except OSError as error:
            raise StoreError(
                f"the checkpoint of epoch {epoch} cannot be kept in {self._objects.uri}", got=error
            ) from error

    def newest(self) -> tuple[bytes | None, list[str]]:
        """The content of the newest whole checkpoint, and the keys of those that are not whole.

        Raises:
            StoreError: The store cannot be read.
        """
        torn: list[str] = []
        try:
            for key in reversed(self._keys()):
                content = self._objects.read(key)
                if unpacked(content) is not None:
                    return content, torn
                torn.append(key)
        except OSError as error:
            raise StoreError(f"checkpoints in {self._objects.uri} cannot be read", got=error) from error
        return None, torn

    def _keys(self) -> list[str]:
        return sorted(entry.key for entry in self._objects.walk(self._fit))


def _item(value: Any) -> Any:
    return value.item()  # NumPy's own numbers


def _type(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # bfloat16 and its like, which TensorFlow brings

        kind: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return kind
