"""A rank's failure in the words that reach the caller."""

from __future__ import annotations

from pathlib import Path

from ml_platform.errors import PlatformError, RankError, RankLostError, ResourceStartError
from ml_platform.resources.horovod.gang import Gang, RankProcess
from ml_platform.resources.horovod.plan import RankPlan
from ml_platform.worker.messages import Failed

TAIL_LINES = 20
_TAIL_BYTES = 64 << 10
_EXIT_S = 1.0
"""How long a process that has just hung up may take to end."""


def failure(
    failed: Failed, plan: RankPlan, world_size: int, name: str, *, from_byte: int = 0
) -> PlatformError:
    """The error for a function that raised on a rank.

    The platform's own errors stay what they are, so that a command keeps its exit code.
    """
    where = f"rank {plan.rank} of {world_size} on {plan.host}"
    if failed.error is not None:
        error = failed.error
        evidence = "\n".join(
            filter(None, [error.evidence, f"raised by {name} on {where}; log: {plan.log_file}"])
        )
        return type(error)(error.what, wanted=error.wanted, got=error.got, evidence=evidence, hint=error.hint)
    # What Horovod says on a rank means that another one is lost, even where that one never shows itself.
    kind = RankLostError if failed.consequence else RankError
    return kind(
        f"{where} raised {failed.type} in {name}",
        got=failed.message or failed.type,
        evidence=f"{failed.traceback.rstrip()}\n{quoted(plan.log_file, from_byte, less=failed.traceback)}",
        hint=f"see {plan.log_file}",
    )


def death(rank: RankProcess, world_size: int, name: str, reason: str) -> RankError:
    """The error for a rank whose process ended in the middle of a job."""
    plan, exit_code = rank.plan, rank.handle.exit_code(_EXIT_S)
    if exit_code is None:
        how = reason
    else:
        how = f"it was killed by signal {-exit_code}" if exit_code < 0 else f"it exited with {exit_code}"
    return RankLostError(
        f"rank {plan.rank} of {world_size} on {plan.host} died in {name}",
        wanted="a process that lives until its function returns",
        got=how,
        evidence=_words_of(rank),
        hint="see whether the machine ran out of memory" if exit_code == -9 else f"see {plan.log_file}",
    )


def silence(ranks: list[RankProcess], world_size: int, name: str, timeout_s: float) -> RankError:
    """The error for ranks that did not give a sign of life in time."""
    numbers, first = ", ".join(str(rank.plan.rank) for rank in ranks), ranks[0]
    return RankLostError(
        f"rank {numbers} of {world_size} on {first.plan.host} fell silent in {name}",
        wanted=f"a sign of life within {timeout_s:g} s",
        got="none: the process is stopped, or its machine is overloaded",
        evidence=_words_of(first),
        hint="a larger `heartbeat_timeout_s` waits longer",
    )


def not_started(missing: list[RankPlan], gang: Gang) -> ResourceStartError:
    """The error for a gang whose ranks did not all become ready."""
    plan, first = gang.plan, missing[0]
    rank = next((rank for rank in gang.ranks if rank.plan.rank == first.rank), None)
    exit_code = None if rank is None else rank.handle.exit_code(_EXIT_S)
    ended = "" if exit_code is None else f"; rank {first.rank} ended with exit code {exit_code}"
    numbers = ", ".join(str(plan.rank) for plan in missing)
    waiting = f"; {gang.why_waiting}" if gang.why_waiting else ""
    return ResourceStartError(
        f"{plan.world_size} ranks did not start on {first.host}",
        wanted=f"{plan.world_size} ranks ready within {plan.start_timeout_s:g} s",
        got=f"missing ranks {numbers}{ended}{waiting}",
        evidence=None if rank is None else _words_of(rank),
        hint="fewer `ranks` in the recipe, or a larger `start_timeout_s`",
    )


def _words_of(rank: RankProcess) -> str:
    rank.handle.flush_log()
    return quoted(rank.plan.log_file, rank.log_start)


def quoted(log_file: Path, from_byte: int = 0, *, less: str = "") -> str:
    """The last lines of a log file, for an error."""
    text = _tail(log_file, from_byte)
    lines = (text.replace(less, "") if less else text).splitlines()[-TAIL_LINES:]
    return "\n".join([f"log: {log_file} (last {len(lines)} lines below)", *lines])


def _tail(log_file: Path, from_byte: int) -> str:
    try:
        with log_file.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(min(from_byte, end), end - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError as error:
        return f"(the log cannot be read: {error})"
