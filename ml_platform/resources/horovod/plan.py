"""What a launch will do, as a value: decided before anything starts, and printable. Holds no secret."""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from ml_platform.errors import ResourceStartError, SpecError
from ml_platform.specs.base import Spec
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import BACKENDS, Backend, HorovodSpec
from ml_platform.worker.network import own_interface
from ml_platform.worker.spawn import import_path

LOOPBACK = "127.0.0.1"
LOOPBACK_NETWORK = "127.0.0.0/8"
ANYWHERE = "(where Spark gives a slot)"


class Place(Spec):
    """Where one rank is: its machine, and its way into the job's network there.

    `device`: what CUDA shall see.
    """

    host: str
    address: str
    interface: str
    device: str | None = None
    environment: dict[str, str] = Field({}, description="What else is set there.")

    @property
    def key(self) -> tuple[str, str]:
        """Equal for ranks that share a machine: two executors of one machine, but not two pods."""
        return self.host, self.address


class _Position(Spec):
    """A rank among all of them, among those of its host, and among those of its number on every host."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int


class RankPlan(Spec):
    """One rank of a launch."""

    rank: int
    host: str
    local_rank: int = 0
    cross_rank: int = 0
    environment: dict[str, str] = Field(description="What is set beside the driver's own environment.")
    command: tuple[str, ...] = Field(description="At the start, descriptors and the parent are added.")
    log_file: Path


class LaunchPlan(Spec):
    """A gang that is about to start."""

    backend: Backend
    ranks: tuple[RankPlan, ...]
    network: str = Field(description="Every machine uses its address in it.")
    address: str = Field(description="Of this machine, where ranks find the driver.")
    port: int = Field(description="Where the driver listens for ranks of other machines. 0: a free one.")
    unencrypted: bool = Field(description="Whether that is fine where Spark encrypts its own traffic.")
    gpu: bool = Field(description="Whether each rank wants a GPU of its own.")
    start_timeout_s: float
    heartbeat_timeout_s: float
    memory_mib_per_rank: int
    max_age_s: float
    max_memory_mib: int

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
        SpecError: More than one rank in one process.
    """
    backend = spec.backend or placement.backend
    place = BACKENDS[backend].place
    ranks = spec.ranks or (1 if place == "process" else placement.ranks)
    _check(backend, ranks, gpus)
    command = () if place == "process" else _command(ranks, spec, preload=preload)
    plan = LaunchPlan(
        backend=backend,
        ranks=tuple(
            RankPlan(
                rank=rank,
                host=ANYWHERE if place == "spark" else socket.gethostname(),
                environment={} if place == "process" else _settings(spec, placement),
                command=command,
                log_file=log_folder / f"rank-{rank}.log",
            )
            for rank in range(ranks)
        ),
        network=placement.network if place == "spark" else LOOPBACK_NETWORK,
        address=own_interface(placement.network).address if place == "spark" else LOOPBACK,
        port=placement.port,
        unencrypted=placement.unencrypted,
        gpu=bool(spec.gpu),
        start_timeout_s=spec.start_timeout_s,
        heartbeat_timeout_s=spec.heartbeat_timeout_s,
        memory_mib_per_rank=placement.memory_mib_per_rank,
        max_age_s=placement.max_age_s,
        max_memory_mib=placement.max_memory_mib,
    )
    return place_ranks(plan, _places_here(ranks, gpus)) if place == "machine" else plan


def _places_here(ranks: int, gpus: int) -> list[Place]:
    path = {"PYTHONPATH": os.pathsep.join(import_path())}
    return [
        Place(
            host=socket.gethostname(),
            address=LOOPBACK,
            interface=own_interface(LOOPBACK_NETWORK).name,
            device=_device(rank, os.environ) if gpus else None,
            environment=path,
        )
        for rank in range(ranks)
    ]


def _check(backend: Backend, ranks: int, gpus: int) -> None:
    from ml_platform.resources.horovod_build import horovod_available

    if BACKENDS[backend].place == "process" and ranks > 1:
        raise SpecError(
            f"the {backend} backend has one rank",
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


def place_ranks(plan: LaunchPlan, places: Sequence[Place]) -> LaunchPlan:
    """The plan once it is known where its ranks are: hosts, local and cross ranks, environment.

    Args:
        places: One per rank. Ranks of one host are neighbours.
    """
    hosts = list(dict.fromkeys(place.key for place in places))
    sizes = Counter(place.key for place in places)
    seen: Counter[tuple[str, str]] = Counter()
    ranks = []
    for rank, place in zip(plan.ranks, places, strict=True):
        local_rank = seen[place.key]
        seen[place.key] += 1
        across = [host for host in hosts if sizes[host] > local_rank]
        position = _Position(
            rank=rank.rank,
            size=plan.world_size,
            local_rank=local_rank,
            local_size=sizes[place.key],
            cross_rank=across.index(place.key),
            cross_size=len(across),
        )
        environment = {**rank.environment, **_horovod(position, place, plan.address), **place.environment}
        if place.device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = place.device
        known = {"host": place.host, "local_rank": local_rank, "cross_rank": position.cross_rank}
        command = _with_local_rank(rank.command, local_rank)
        ranks.append(rank.model_copy(update={**known, "environment": environment, "command": command}))
    return plan.model_copy(update={"ranks": tuple(ranks)})


def _horovod(position: _Position, place: Place, driver: str) -> dict[str, str]:
    return {
        "HOROVOD_HOSTNAME": place.address,
        "HOROVOD_RANK": str(position.rank),
        "HOROVOD_SIZE": str(position.size),
        "HOROVOD_LOCAL_RANK": str(position.local_rank),
        "HOROVOD_LOCAL_SIZE": str(position.local_size),
        "HOROVOD_CROSS_RANK": str(position.cross_rank),
        "HOROVOD_CROSS_SIZE": str(position.cross_size),
        "HOROVOD_GLOO_IFACE": place.interface,
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": driver,
        "NCCL_SOCKET_IFNAME": place.interface,
    }


def _settings(spec: HorovodSpec, placement: HorovodPlacement) -> dict[str, str]:
    """What is the same on every rank, wherever it is."""
    return {
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(max(5, round(spec.heartbeat_timeout_s))),
        "KERAS_BACKEND": "tensorflow",
        "OMP_NUM_THREADS": str(placement.threads),
        "TF_NUM_INTRAOP_THREADS": str(placement.threads),
        "TF_NUM_INTEROP_THREADS": str(placement.threads),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONUNBUFFERED": "1",
    }


def _device(local_rank: int, environment: Mapping[str, str]) -> str:
    visible = [
        name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()
    ]
    return visible[local_rank] if local_rank < len(visible) else str(local_rank)


def _command(ranks: int, spec: HorovodSpec, *, preload: bool) -> tuple[str, ...]:
    beat_s = min(1.0, spec.heartbeat_timeout_s / 5)
    options = {"world-size": ranks, "beat-s": beat_s}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return (sys.executable, "-m", "ml_platform.worker", *words, *([] if preload else ["--no-preload"]))


def _with_local_rank(command: tuple[str, ...], local_rank: int) -> tuple[str, ...]:
    return (*command, "--local-rank", str(local_rank)) if command else ()
