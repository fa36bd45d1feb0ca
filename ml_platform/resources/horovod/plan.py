"""What a launch will do, as a value: decided before anything starts, and printable. Holds no secret."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from ml_platform.errors import ResourceStartError, SpecError
from ml_platform.specs.base import Spec
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import Backend, HorovodSpec

LOOPBACK = "127.0.0.1"
_HOSTNAME = "localhost"


class RankPlan(Spec):
    """One rank of a launch."""

    rank: int
    host: str
    local_rank: int
    cross_rank: int
    environment: dict[str, str] = Field(description="What is set beside the driver's own environment.")
    command: tuple[str, ...] = Field(description="Inherited file descriptors are added at the start.")
    log_file: Path


class LaunchPlan(Spec):
    """A gang that is about to start."""

    backend: Backend
    ranks: tuple[RankPlan, ...]
    start_timeout_s: float
    heartbeat_timeout_s: float

    @property
    def world_size(self) -> int:
        return len(self.ranks)

    def __str__(self) -> str:
        lines = [f"{self.world_size} rank(s), backend {self.backend}"]
        for plan in self.ranks:
            lines.append(f"rank {plan.rank}: {plan.host}, local rank {plan.local_rank}, log {plan.log_file}")
            if plan.command:
                lines.append(f"  {' '.join(plan.command)}")
            lines.extend(f"  {name}={value}" for name, value in sorted(plan.environment.items()))
        return "\n".join(lines)


def plan_launch(
    spec: HorovodSpec, placement: HorovodPlacement, log_folder: Path, *, gpus: int = 0, preload: bool = True
) -> LaunchPlan:
    """Who runs where, with which environment, command and log file.

    Args:
        gpus: GPUs of this machine that ranks may use, one each. 0: as the environment says.
        preload: Ranks import TensorFlow, Keras and Horovod before they are ready, not in their first job.
    Raises:
        ResourceStartError: More than one rank and no Horovod that fits, or more ranks than GPUs.
        SpecError: `in_process` with more than one rank.
    """
    backend = spec.backend or placement.backend
    ranks = spec.ranks or (1 if backend == "in_process" else placement.ranks)
    _check(backend, ranks, gpus)
    plans = tuple(
        _rank_plan(backend, rank, ranks, spec, log_folder, gpus, preload=preload) for rank in range(ranks)
    )
    return LaunchPlan(
        backend=backend,
        ranks=plans,
        start_timeout_s=spec.start_timeout_s,
        heartbeat_timeout_s=spec.heartbeat_timeout_s,
    )


def _check(backend: Backend, ranks: int, gpus: int) -> None:
    from ml_platform.resources.horovod_build import horovod_available

    if backend == "in_process" and ranks > 1:
        raise SpecError(
            "the in_process backend has one rank",
            wanted="ranks=1",
            got=f"ranks={ranks}",
            hint="backend='processes' for more ranks on this machine",
        )
    if gpus and ranks > gpus:
        raise ResourceStartError(f"{ranks} ranks need a GPU each", wanted=ranks, got=f"{gpus} GPU(s)")
    if ranks > 1 and not (available := horovod_available()).ok:
        raise ResourceStartError(
            f"{ranks} ranks cannot train together here",
            wanted="Horovod built against the installed TensorFlow",
            got=available.reason,
            hint="one rank trains without Horovod (ranks=1)",
        )


def _rank_plan(
    backend: Backend, rank: int, ranks: int, spec: HorovodSpec, log_folder: Path, gpus: int, *, preload: bool
) -> RankPlan:
    own = backend == "processes"
    return RankPlan(
        rank=rank,
        host=socket.gethostname(),
        local_rank=rank,
        cross_rank=0,
        environment=_environment(rank, ranks, spec, gpus) if own else {},
        command=_command(rank, ranks, spec, preload=preload) if own else (),
        log_file=log_folder / f"rank-{rank}.log",
    )


def _environment(rank: int, ranks: int, spec: HorovodSpec, gpus: int) -> dict[str, str]:
    environment = {
        "HOROVOD_HOSTNAME": _HOSTNAME,
        "HOROVOD_RANK": str(rank),
        "HOROVOD_SIZE": str(ranks),
        "HOROVOD_LOCAL_RANK": str(rank),
        "HOROVOD_LOCAL_SIZE": str(ranks),
        "HOROVOD_CROSS_RANK": "0",
        "HOROVOD_CROSS_SIZE": "1",
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_IFACE": "lo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": LOOPBACK,
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(max(5, round(spec.heartbeat_timeout_s))),
        "KERAS_BACKEND": "tensorflow",
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(_import_path()),
    }
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = _device(rank, os.environ)
    return environment


def _device(local_rank: int, environment: Mapping[str, str]) -> str:
    visible = [
        name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()
    ]
    return visible[local_rank] if local_rank < len(visible) else str(local_rank)


def _command(rank: int, ranks: int, spec: HorovodSpec, *, preload: bool) -> tuple[str, ...]:
    beat_s = min(1.0, spec.heartbeat_timeout_s / 5)
    options = {"world-size": ranks, "local-rank": rank, "beat-s": beat_s, "parent": os.getpid()}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return (sys.executable, "-m", "ml_platform.worker", *words, *([] if preload else ["--no-preload"]))


def _import_path() -> list[str]:
    """Where the driver finds modules, less what every interpreter finds by itself."""
    paths = [str(Path(entry or ".").absolute()) for entry in sys.path]
    own = tuple(str(Path(prefix, "lib", "python")) for prefix in {sys.prefix, sys.base_prefix})
    return [path for path in dict.fromkeys(paths) if Path(path).exists() and not path.startswith(own)]
