"""NVIDIA GPUs of this machine, as its driver lists them and the environment lets them be seen."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from ml_platform.specs.base import Spec

VISIBLE = "CUDA_VISIBLE_DEVICES"
DISCOVERY_SCRIPT = Path(__file__).with_name("gpu_discovery.sh")
"""What Spark runs on each machine to learn which GPUs are there. Needs only a shell and nvidia-smi."""

_QUERY = ("--query-gpu=index,uuid,memory.total,name", "--format=csv,noheader,nounits")
_TIMEOUT_S = 10


class Gpu(Spec):
    """One GPU."""

    index: int
    uuid: str
    memory_mib: int
    name: str


def visible_gpus(environment: Mapping[str, str] | None = None) -> tuple[Gpu, ...]:
    """GPUs that a program started here may use, in the order in which CUDA numbers them.

    Empty without a driver, and where CUDA_VISIBLE_DEVICES hides them all.

    Args:
        environment: Default: that of this process.
    """
    return chosen(_listed(), (os.environ if environment is None else environment).get(VISIBLE))


def chosen(gpus: Iterable[Gpu], visible: str | None) -> tuple[Gpu, ...]:
    """What CUDA_VISIBLE_DEVICES leaves of these: numbers or the beginnings of UUIDs, up to the first unknown.

    >>> one, two = (Gpu(index=i, uuid=f"GPU-{i}a", memory_mib=1, name="x") for i in range(2))
    >>> [gpu.index for gpu in chosen([one, two], "GPU-1,0")], chosen([one, two], "-1"), chosen([one], "")
    ([1, 0], (), ())
    """
    known = list(gpus)
    if visible is None:
        return tuple(known)
    found: list[Gpu] = []
    for word in visible.split(","):
        gpu = next((gpu for gpu in known if _is(gpu, word.strip())), None)
        if gpu is None:
            break
        found.append(gpu)
    return tuple(found)


def spark_gpu_settings(master: str) -> dict[str, str]:
    """One GPU per executor and per task that asks for none. In local mode Spark knows no GPUs."""
    if master.startswith("local"):
        return {}
    vendor = {"spark.executor.resource.gpu.vendor": "nvidia.com"} if master.startswith("k8s://") else {}
    return {
        "spark.executor.resource.gpu.amount": "1",
        "spark.executor.resource.gpu.discoveryScript": str(DISCOVERY_SCRIPT),
        "spark.task.resource.gpu.amount": "1",
        **vendor,
    }


def _is(gpu: Gpu, word: str) -> bool:
    return bool(word) and (word == str(gpu.index) or (word.startswith("GPU-") and gpu.uuid.startswith(word)))


def _listed() -> list[Gpu]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        told = subprocess.run(
            [program, *_QUERY], capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return []  # a driver that does not answer is none to train on
    return [gpu for line in told.stdout.splitlines() if (gpu := parsed(line)) is not None]


def parsed(line: str) -> Gpu | None:
    """One line of nvidia-smi; None for what is no GPU.

    >>> parsed("0, GPU-5f, 81559, NVIDIA H100 80GB HBM3").memory_mib
    81559
    """
    words = [word.strip() for word in line.split(",", 3)]
    if len(words) < 4 or not words[0].isdecimal():
        return None
    memory_mib = int(words[2]) if words[2].isdecimal() else 0
    return Gpu(index=int(words[0]), uuid=words[1], memory_mib=memory_mib, name=words[3])
