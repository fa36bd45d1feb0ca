"""A job that runs while its caller does something else, with what its ranks say as streams."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from ml_platform.resources.horovod.job import HorovodJob, RankResults

T = TypeVar("T")

_LOOK_S = 0.1


class Submitted(Generic[T]):
    """One job under way. Progress goes to whoever listened when it was submitted."""

    def __init__(self, job: HorovodJob, fn: Callable[..., T], args: tuple[Any, ...]) -> None:
        self._job = job
        self._future: Future[RankResults[T]] = Future()
        self._ended = threading.Event()
        self._said = threading.Condition()
        self._metrics: list[list[tuple[int, dict[str, float]]]] = [[] for _ in job.plan.ranks]
        self._log_starts = [_size(plan.log_file) for plan in job.plan.ranks]
        run = copy_context().run
        threading.Thread(target=run, args=(self._run, fn, args), name="horovod-job", daemon=True).start()

    def result(self, timeout_s: float | None = None) -> RankResults[T]:
        """What every rank returned. Raises what `run` would raise, or TimeoutError."""
        return self._future.result(timeout_s)

    def done(self) -> bool:
        return self._ended.is_set()

    def cancel(self) -> None:
        """End the ranks; `result` raises a `RankError`."""
        self._job.cancel()

    def metrics(self, rank: int = 0) -> Iterator[tuple[int, dict[str, float]]]:
        """(step, values) as a rank logs them, from the first, until the job has ended."""
        heard = self._metrics[rank]
        for number in itertools.count():
            with self._said:
                self._said.wait_for(partial(self._has_heard, heard, number))
                if number == len(heard):
                    return
                said = heard[number]
            yield said

    def _has_heard(self, heard: Sequence[object], number: int) -> bool:
        return number < len(heard) or self.done()

    def log(self, rank: int) -> Iterator[str]:
        """Lines of a rank's log as they are written, from the job's first, until it has ended."""
        log_file, rest = self._job.plan.ranks[rank].log_file, ""
        place = self._log_starts[rank]
        while True:
            last = self._ended.wait(_LOOK_S)
            if log_file.exists():
                with log_file.open("rb") as file:
                    file.seek(place)
                    data = file.read()
                place += len(data)
                *lines, rest = (rest + data.decode(errors="replace")).split("\n")
                yield from lines
            if last:
                yield from filter(None, [rest])
                return

    def _run(self, fn: Callable[..., T], args: tuple[Any, ...]) -> None:
        try:
            results = self._job.run(fn, *args, on_rank_metrics=self._heard)
        except BaseException as error:  # noqa: BLE001  (`result` raises it)
            self._future.set_exception(error)
        else:
            self._future.set_result(results)
        with self._said:
            self._ended.set()
            self._said.notify_all()

    def _heard(self, rank: int, values: Mapping[str, float], step: int) -> None:
        with self._said:
            self._metrics[rank].append((step, dict(values)))
            self._said.notify_all()


def _size(log_file: Path) -> int:
    try:
        return log_file.stat().st_size
    except OSError:
        return 0
