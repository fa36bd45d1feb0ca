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
class Ping:
    """Driver → rank: are you there?"""


@dataclass(frozen=True)
class Pong:
    """Rank → driver: yes."""


@dataclass(frozen=True)
class Ready:
    """Rank → driver: imports are done, jobs may come."""

    pid: int
    host: str
    seconds: float


@dataclass(frozen=True)
class Beat:
    """Rank → driver: the process runs, and holds so much memory."""

    memory_mib: int = 0


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


@dataclass(frozen=True)
class Arrived:
    """Keeper → driver: a task has its slot, and this is what a rank would find there.

    `horovod`: why Horovod cannot be used there; empty if it can. `memory_mib`: free. `devices`: addresses
    of the GPUs that Spark gave the task.
    """

    host: str
    address: str
    interface: str
    versions: Mapping[str, str]
    horovod: str
    memory_mib: int
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listen:
    """Driver → keeper: open a port until the next message, so that others can try to reach it."""


@dataclass(frozen=True)
class Listening:
    """Keeper → driver: the port."""

    port: int


@dataclass(frozen=True)
class Reach:
    """Driver → keeper: try whether this can be reached."""

    address: str
    port: int


@dataclass(frozen=True)
class Reached:
    """Keeper → driver: why it could not; empty if it could."""

    error: str


@dataclass(frozen=True)
class Start:
    """Driver → keeper: start this rank. The first word of `command` stands for the keeper's interpreter."""

    rank: int
    command: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Started:
    """Keeper → driver: the rank's process has this number."""

    pid: int


@dataclass(frozen=True)
class Printed:
    """Keeper → driver: what the rank printed."""

    text: bytes = field(repr=False)


@dataclass(frozen=True)
class Flush:
    """Driver → keeper: send what the rank has printed so far, and say when that is done."""


@dataclass(frozen=True)
class Flushed:
    """Keeper → driver: it is done."""


@dataclass(frozen=True)
class Exited:
    """Keeper → driver: the rank's process ended, negative: by a signal. Nothing follows."""

    code: int


Message = (
    Job
    | Ping
    | Pong
    | Ready
    | Beat
    | Metrics
    | Note
    | Result
    | Failed
    | Arrived
    | Listen
    | Listening
    | Reach
    | Reached
    | Start
    | Started
    | Printed
    | Flush
    | Flushed
    | Exited
)
