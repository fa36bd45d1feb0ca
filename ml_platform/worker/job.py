"""One job on one rank: join the others, call the function, say how it ended."""

from __future__ import annotations

import pickle
import re
import sys
import traceback
from functools import partial

from ml_platform.errors import PlatformError
from ml_platform.worker import messages
from ml_platform.worker.channel import Channel
from ml_platform.worker.collective import Collective, open_collective
from ml_platform.worker.payload import pack_result, unpack_job
from ml_platform.worker.rank import Rank, Reporter

# What Horovod and Gloo say on the ranks that did not fail themselves.
_CONSEQUENCE = re.compile(
    r"HorovodInternalError|Horovod has been shut down|Connection closed by peer|Connection reset by peer"
    r"|gloo/transport|Gloo .*failed",
    re.IGNORECASE,
)


def run_job(
    job: messages.Job, channel: Channel, reporter: Reporter, *, world_size: int, local_rank: int
) -> None:
    """Run it and send the result, or how it failed. Raises nothing that the function raised."""
    collective: Collective | None = None
    answer: messages.Result | messages.Failed
    try:
        collective = open_collective(world_size, partial(reporter.progress, done=None, total=None))
        function, args = unpack_job(job.payload)
        value = function(Rank(collective, reporter, local_rank=local_rank), *args)
        answer = messages.Result(job.number, pack_result(value, name=job.name))
    except BaseException as error:  # noqa: BLE001  (an exit of the function is a failure like any other)
        answer = describe(job.number, error)
        print(answer.traceback, file=sys.stderr, flush=True)
    # The cause is sent before others notice: leaving makes them fail at once instead of waiting for good.
    channel.send(answer)
    if collective is not None:
        collective.close()


def describe(job: int, error: BaseException) -> messages.Failed:
    """A failure in words that travel, whatever the exception is made of."""
    text = "".join(traceback.format_exception(error))
    message = _said_by(error)
    return messages.Failed(
        job=job,
        type=type(error).__name__,
        message=message,
        traceback=text,
        consequence=_CONSEQUENCE.search(f"{type(error).__name__}: {message}") is not None,
        error=_travelling(error) if isinstance(error, PlatformError) else None,
    )


def _said_by(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as fault:  # noqa: BLE001  (of a class of the user's own)
        return f"(its text cannot be made: {type(fault).__name__})"


def _travelling(error: PlatformError) -> PlatformError | None:
    """The exception itself, or one of the platform's class below its own: a class that the function made
    cannot be found by the driver."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # noqa: BLE001  (whatever a class of the user's own raises)
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ == PlatformError.__module__)
    try:
        found: PlatformError = kind(
            error.what, wanted=error.wanted, got=error.got, evidence=error.evidence, hint=error.hint
        )
    except AttributeError:
        return None  # it was made without the constructor of its base
    return found
