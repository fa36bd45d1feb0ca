"""A rank function that may be called again: the driver half's part of recovery."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_platform.worker.rank import Rank


class Recoverable:
    """A rank function whose fits find and leave checkpoints. It travels to ranks in the function's place."""

    def __init__(self, function: Callable[..., Any], uri: str) -> None:
        functools.update_wrapper(self, function)
        self._function, self._uri = function, uri

    def __call__(self, rank: Rank, *args: Any) -> Any:
        rank.checkpoint_uri = self._uri
        return self._function(rank, *args)
