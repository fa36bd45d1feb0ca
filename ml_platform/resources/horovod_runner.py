"""`HorovodRunner`, as Databricks Runtime ML had it: names and meaning of the original, ranks of ours."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from ml_platform.errors import SpecError
from ml_platform.resources import progress
from ml_platform.resources.budget import Budget
from ml_platform.resources.horovod import open_job
from ml_platform.resources.horovod.job import HorovodJob
from ml_platform.resources.log_echo import echoed
from ml_platform.resources.placement import load_placement
from ml_platform.resources.spark import open_session
from ml_platform.specs.resources import HorovodSpec
from ml_platform.store.leftovers import builder
from ml_platform.store.location import home
from ml_platform.worker.main_function import MainFunction

T = TypeVar("T")

Verbosity = Literal["all", "log_callback_only"]
_VERBOSITIES = ("all", "log_callback_only")
_runs = itertools.count()


class HorovodRunner:
    """Runs a function on `np` ranks that train together.

    Args:
        np: −n: n ranks on this machine. n: n ranks as tasks of one Spark job, started together.
        driver_log_verbosity: What is printed here: everything that ranks print ("all"), or what they send
            by `log_to_driver` and `LogCallback`.
    Raises:
        SpecError: `np` is 0 or no number of ranks, or there is no such verbosity.
    """

    def __init__(self, *, np: int, driver_log_verbosity: Verbosity = "log_callback_only") -> None:
        self._spec = _spec(np)
        if driver_log_verbosity not in _VERBOSITIES:
            raise SpecError(
                f"no driver_log_verbosity {driver_log_verbosity!r}", wanted=" or ".join(_VERBOSITIES)
            )
        self._verbosity = driver_log_verbosity

    def run(self, main: Callable[..., T], **kwargs: Any) -> T:
        """Call `main(**kwargs)` on every rank.

        Inside, `import horovod.tensorflow.keras as hvd` works as it did: see docs/horovodrunner.md.

        Args:
            main: Pickled with its arguments. What it imports inside, only ranks import.
        Returns:
            What `main` returned on rank 0; that must be picklable.
        Raises:
            SpecError: `main` or an argument cannot be pickled, or they are larger than 64 MiB.
            ResourceStartError: The ranks did not start.
            RankError: A rank raised or died; with its traceback, rank, host and log.
        """
        folder = home() / "logs" / f"horovod-runner-{builder()}-{next(_runs)}"
        placement = load_placement()
        spec = self._spec.model_copy(update={"gpu": placement.horovod.gpu})
        gpus = 0
        with ExitStack() as stack:
            if spec.backend == "spark":
                # Its tasks run in a Spark application, which must outlive them, and gives them GPUs.
                stack.enter_context(open_session(placement.spark))
            elif spec.gpu:
                gpus = Budget(placement.budget).gpus
            job = stack.enter_context(open_job(spec, placement.horovod, log_folder=folder, gpus=gpus))
            return run_main(job, main, kwargs, log_folder=folder, verbosity=self._verbosity)


def run_main(
    job: HorovodJob,
    main: Callable[..., T],
    kwargs: dict[str, Any],
    *,
    log_folder: Path,
    verbosity: Verbosity = "log_callback_only",
) -> T:
    """`HorovodRunner.run` on ranks that are there already."""
    logs = [log_folder / f"rank-{rank}.log" for rank in range(job.ranks)] if verbosity == "all" else []
    with echoed(logs), _printed():
        result: Any = job.run(MainFunction(main), kwargs).rank0
    return result  # type: ignore[no-any-return]


def _spec(np: object) -> HorovodSpec:
    if isinstance(np, bool) or not isinstance(np, int) or np == 0:
        raise SpecError(
            "HorovodRunner needs a number of ranks",
            wanted="np=-2 for two ranks on this machine, np=2 for two tasks of a Spark job",
            got=f"np={np!r}",
        )
    if np < 0:
        return HorovodSpec(ranks=-np, backend="processes")
    return HorovodSpec(ranks=np, backend="spark")


@contextmanager
def _printed() -> Iterator[None]:
    """Lines from ranks are printed; how far the work is, others may hear as before."""
    others = progress.listener()

    def hear(said: progress.Progress) -> None:
        if said.done is None:
            print(said.message, flush=True)
        elif others is not None:
            others(said)

    with progress.listening(hear):
        yield
