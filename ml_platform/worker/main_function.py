"""`main(**kwargs)` of `HorovodRunner` as a rank function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ml_platform.errors import UsageError
from ml_platform.worker.rank import Rank

_current: ContextVar[Rank | None] = ContextVar("rank", default=None)


class MainFunction:
    """Calls `main(**kwargs)` on every rank; rank 0's value is the result. Known by the name of `main`."""

    def __init__(self, main: Callable[..., object]) -> None:
        self._main = main
        self.__module__ = main.__module__
        self.__qualname__ = getattr(main, "__qualname__", type(main).__qualname__)

    @property
    def __code__(self) -> Any:
        """What names the part that cannot be pickled, where one cannot."""
        return getattr(self._main, "__code__", None)

    @property
    def __closure__(self) -> Any:
        return getattr(self._main, "__closure__", None)

    def __call__(self, rank: Rank, kwargs: Mapping[str, object]) -> object:
        from ml_platform.worker.stock_horovod import mended_horovod

        with _as_current(rank), mended_horovod(rank.collective):
            value = self._main(**kwargs)
        return value if rank.rank == 0 else None


def current_rank() -> Rank:
    """The rank that runs this code, inside the `main` of `HorovodRunner`.

    Raises:
        UsageError: No rank runs this code.
    """
    rank = _current.get()
    if rank is None:
        raise UsageError(
            "no rank runs this code",
            wanted="a call inside the main function of HorovodRunner",
            hint="a rank function of `HorovodJob.run` gets its rank as its first argument",
        )
    return rank


@contextmanager
def _as_current(rank: Rank) -> Iterator[None]:
    token = _current.set(rank)
    try:
        yield
    finally:
        _current.reset(token)
