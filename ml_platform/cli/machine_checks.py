"""Java, Horovod and its compiler, cores, memory, disk, GPUs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import psutil

from ml_platform.cli.checks import Check, Status
from ml_platform.errors import StoreError
from ml_platform.resources.gpus import Gpu, visible_gpus
from ml_platform.resources.horovod_build import COMMAND, horovod_available
from ml_platform.store.location import home

GIB = 2**30
JAVA_WANTED = 17
GET_JAVA = "apt install openjdk-17-jre-headless, or dnf install java-21-openjdk-headless, or set JAVA_HOME"
GET_COMPILER = f"apt install g++ make python3-dev, then {COMMAND}"
PROGRAM_TIMEOUT_S = 2


def check_java() -> Sequence[Check]:
    """The Java that Spark would start."""
    return [judge_java(_java())]


def judge_java(version: str | None) -> Check:
    """`version` as Java tells it: 17.0.15, or 1.8.0_402 of old. None: there is none."""
    fits = version is not None and _java_major(version) >= JAVA_WANTED
    return Check(
        name="Java",
        status="ok" if fits else "block",
        found=version or "none",
        wanted=f"{JAVA_WANTED} or newer",
        reason="" if fits else "Spark 4.2 does not start without it",
        next_step="" if fits else GET_JAVA,
    )


def check_horovod() -> Sequence[Check]:
    """Horovod's build against TensorFlow's libraries; the compiler only matters when it is missing."""
    available, compiler = horovod_available(), _first_line(_compiler(), "--version")
    horovod = Check(
        name="Horovod",
        status="ok" if available.ok else "warn",
        found=available.reason,
        wanted="built for the installed TensorFlow",
        reason="" if available.ok else "flows train on one rank; a flow that asks for more fails in its plan",
        next_step="" if available.ok else f"{COMMAND} --again",
    )
    fits = available.ok or compiler is not None
    return [
        horovod,
        Check(
            name="C++ compiler",
            status="ok" if fits else "warn",
            found=compiler or "none",
            wanted="none: Horovod is built" if available.ok else "one, to build Horovod",
            next_step="" if fits else GET_COMPILER,
        ),
    ]


def check_cores() -> Sequence[Check]:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0))
    fits = cores >= 2
    return [
        Check(
            name="cores",
            status="ok" if fits else "warn",
            found=str(cores),
            wanted="2 or more",
            reason="" if fits else "two ranks, or Spark and a rank, take turns on one core",
        )
    ]


def check_memory() -> Sequence[Check]:
    """Memory that can be had now. Spark's driver takes 2 GiB, a rank 1 GiB."""
    memory = psutil.virtual_memory()
    return [judge_memory(memory.available / GIB, memory.total / GIB)]


def judge_memory(available_gib: float, total_gib: float) -> Check:
    """Below 2 GiB not even Spark's driver fits; below 5 GiB driver, ranks and this process do not."""
    status = _by_limits(available_gib, block=2, warn=5)
    return Check(
        name="memory",
        status=status,
        found=f"{available_gib:.1f} of {total_gib:.1f} GiB free",
        wanted="5 GiB free",
        reason="" if status == "ok" else "Spark's driver takes 2 GiB, each rank 1 GiB",
        next_step="" if status == "ok" else "end other programs, or name a smaller placement",
    )


def check_disk() -> Sequence[Check]:
    """Room where runs and data go."""
    try:
        folder = home()
    except StoreError as error:
        return [_no_folder(str(error.got), str(error.hint))]
    if not os.access(folder, os.W_OK | os.X_OK):
        return [_no_folder(f"{folder} may not be written", "name another folder in ML_PLATFORM_HOME")]
    return [judge_disk(shutil.disk_usage(folder).free / GIB, folder)]


def judge_disk(free_gib: float, folder: Path) -> Check:
    """A run on the digits needs some 50 MiB; Spark's shuffles and the databases need room to grow."""
    status = _by_limits(free_gib, block=1, warn=5)
    return Check(
        name="disk",
        status=status,
        found=f"{free_gib:.1f} GiB free",
        wanted="5 GiB free",
        reason="" if status == "ok" else f"runs and data go to {folder}",
        next_step="" if status == "ok" else "make room, or name another folder in ML_PLATFORM_HOME",
    )


def check_gpus() -> Sequence[Check]:
    """GPUs are optional: they are listed, never asked for."""
    return [judge_gpus(visible_gpus(), cuda_builds())]


def judge_gpus(gpus: Sequence[Gpu], builds: Mapping[str, bool]) -> Check:
    """GPUs that nothing installed can use are worth a warning.

    Args:
        builds: Whether each of TensorFlow, XGBoost and Horovod is a build for GPUs.
    """
    without = [name for name, cuda in builds.items() if not cuda] if gpus else []
    return Check(
        name="GPUs",
        status="warn" if without else "ok",
        found="; ".join(f"{gpu.name}, {gpu.memory_mib} MiB" for gpu in gpus) or "none",
        wanted="any",
        reason=f"installed without CUDA: {', '.join(without)}" if without else "",
        next_step="make setup GPU=1" if without else "",
    )


def cuda_builds() -> dict[str, bool]:
    """Read off the names and versions of what is installed; nothing is imported."""
    return {
        "TensorFlow": _has("tensorflow") and not _has("tensorflow-cpu"),
        "XGBoost": _has("xgboost") and not _has("xgboost-cpu"),
        "Horovod": _has("horovod") and metadata.version("horovod").endswith(".nccl"),
    }


def _has(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _by_limits(value: float, *, block: float, warn: float) -> Status:
    return "block" if value < block else "warn" if value < warn else "ok"


def _no_folder(found: str, next_step: str) -> Check:
    return Check(
        name="disk", status="block", found=found, wanted="a folder for runs and data", next_step=next_step
    )


def _java() -> str | None:
    place = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=str(Path(place) / "bin") if place else None)
    found = re.search(r'version "([^"]+)"', _run(program, "-version"))
    return found[1] if found else None


def _java_major(version: str) -> int:
    found = re.match(r"(?:1\.)?(\d+)", version)
    return int(found[1]) if found else 0


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "c++").split()[0]) or shutil.which("g++")


def _first_line(program: str | None, *arguments: str) -> str | None:
    return next(iter(_run(program, *arguments).splitlines()), None)


def _run(program: str | None, *arguments: str) -> str:
    """What a program says, on stdout and stderr. Empty when it is missing, fails or takes too long."""
    if program is None:
        return ""
    try:
        ended = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=True, timeout=PROGRAM_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return ended.stdout + ended.stderr
