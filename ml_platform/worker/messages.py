"""What a rank and its driver half say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ml_platform.errors import PlatformError


@dataclass(frozen=True)
class Job:
    """Driver → rank: call this function. `payload` is a cloudpickle of (function, arguments)."""

    number: int
    name: str
    payload: bytes = field(repr=False)
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Ready:
    """Rank → driver: imports are done, jobs may come."""

    pid: int
    host: str
    seconds: float


@dataclass(frozen=True)
class Beat:
    """Rank → driver: the process runs."""


@dataclass(frozen=True)
class Metrics:
    """Rank → driver: values at a step, as they happen."""

    values: Mapping[str, float]
    step: int


@dataclass(frozen=True)
class Note:
    """Rank → driver: how far the work is."""

    message: str
    done: float | None = None
    total: float | None = None


@dataclass(frozen=True)
class Result:
    """Rank → driver: the function returned. `payload` is a cloudpickle of the value."""

    job: int
    payload: bytes = field(repr=False)


@dataclass(frozen=True)
class Failed:
    """Rank → driver: the function raised.

    `consequence`: Horovod raised because another rank failed; that rank knows the cause.
    `error`: the exception itself, where it is the platform's own.
    """

    job: int
    type: str
    message: str
    traceback: str
    consequence: bool
    error: PlatformError | None = None


Message = Job | Ready | Beat | Metrics | Note | Result | Failed
