"""What each task of the barrier stage does on its executor: say what is there, then keep a rank."""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_platform.worker import messages
from ml_platform.worker.keeper import DriverAddress, keep_rank
from ml_platform.worker.network import own_interface

COMPARED = ("tensorflow", "keras", "horovod", "numpy", "cloudpickle")
_CGROUP = Path("/sys/fs/cgroup")


def run_task(driver: DriverAddress, network: str, batches: Iterable[Any]) -> Iterator[Any]:
    """For `mapInArrow`. Yields nothing; ends with its rank."""
    from pyspark import TaskContext

    for _ in batches:
        pass
    context = TaskContext.get()
    devices = context.resources().get("gpu") if context is not None else None
    addresses = () if devices is None else tuple(devices.addresses)
    keep_rank(driver, 0 if context is None else context.partitionId(), _arrived(network, addresses))
    yield from ()


def _arrived(network: str, devices: tuple[str, ...]) -> messages.Arrived:
    from ml_platform.resources.horovod_build import horovod_available

    here, horovod = own_interface(network), horovod_available()
    return messages.Arrived(
        host=socket.gethostname(),
        address=here.address,
        interface=here.name,
        versions=own_versions(),
        horovod="" if horovod.ok else horovod.reason,
        memory_mib=free_memory_mib(),
        devices=devices,
    )


def own_versions() -> dict[str, str]:
    """Of what must be alike wherever ranks run, because pickles and models cross."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **{name: _version(name) for name in COMPARED}}


def _version(name: str) -> str:
    for distribution in (name, f"{name}-cpu"):
        try:
            return metadata.version(distribution).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return "none"


def free_memory_mib() -> int:
    """What may still be taken here: of the machine, and of the container if there is one."""
    import psutil

    free = psutil.virtual_memory().available
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        if limit != "max":
            free = min(free, max(int(limit) - used, 0))
    except (OSError, ValueError):
        pass  # no such control group: the machine's own memory is the limit
    return int(free >> 20)
