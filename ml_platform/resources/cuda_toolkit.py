"""What Horovod's build for GPUs needs of the machine: CUDA's compiler, and NCCL's header and library."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ml_platform.errors import ResourceStartError
from ml_platform.specs.base import Spec

GET_CUDA = "CUDA's toolkit in /usr/local/cuda, or name its folder in CUDA_HOME"
GET_NCCL = "apt install libnccl-dev, pip install nvidia-nccl-cu12, or name its folder in NCCL_HOME"


class Toolkit(Spec):
    """Where the compiler and NCCL lie."""

    nvcc: Path
    nccl_header: Path
    nccl_library: Path

    @property
    def cuda_home(self) -> Path:
        return self.nvcc.parent.parent

    @property
    def version(self) -> str:
        """CUDA's and NCCL's versions, as the build depends on them."""
        return f"CUDA {_nvcc_version(self.nvcc)}, NCCL {_nccl_version(self.nccl_header)}"

    def environment(self, links: Path) -> dict[str, str]:
        """What Horovod's CMake files are told.

        Args:
            links: Folder that gets a `libnccl.so` where the library has a versioned name alone.
        """
        library = self.nccl_library
        if library.name != "libnccl.so":
            links.mkdir(parents=True, exist_ok=True)
            library = links / "libnccl.so"
            library.symlink_to(self.nccl_library)
        folders = [
            str(self.cuda_home / name) for name in ("lib64", "lib") if (self.cuda_home / name).is_dir()
        ]
        before = [path for path in (os.environ.get("LIBRARY_PATH"),) if path]
        return {
            "HOROVOD_CUDA_HOME": str(self.cuda_home),
            "CUDACXX": str(self.nvcc),
            "CUDAToolkit_ROOT": str(self.cuda_home),
            "HOROVOD_NCCL_INCLUDE": str(self.nccl_header.parent),
            "HOROVOD_NCCL_LIB": str(library.parent),
            "HOROVOD_NCCL_LINK": "shared",
            "LIBRARY_PATH": os.pathsep.join([*folders, *before]),
        }


def find_toolkit(
    environment: Mapping[str, str] = os.environ, *, packages: Path | None = None, root: Path = Path("/")
) -> Toolkit:
    """CUDA's compiler and NCCL, from the environment, this Python's packages, or the usual folders.

    Args:
        packages: Where pip's NVIDIA packages lie. Default: the site-packages of this Python.
        root: The file system's root; another one for tests.
    Raises:
        ResourceStartError: Something is missing. It names what, and every place that was looked at.
    """
    packages = packages or Path(sysconfig.get_paths()["purelib"])
    compilers = list(_compilers(environment, packages, root))
    homes = list(_nccl_homes(environment, packages, root))
    nvcc = _first(compilers)
    header = _first(path for home in homes for path in _headers(home))
    library = _first(path for home in homes for path in _libraries(home))
    missing = []
    if nvcc is None:
        missing.append(("nvcc, CUDA's compiler", compilers, GET_CUDA))
    if header is None:
        missing.append(
            ("nccl.h, NCCL's header", [path for home in homes for path in _headers(home)], GET_NCCL)
        )
    if library is None:
        missing.append(("libnccl.so, NCCL's library", homes, GET_NCCL))
    if nvcc is None or header is None or library is None:
        raise ResourceStartError(
            "Horovod cannot be built for GPUs",
            wanted="CUDA's compiler, and NCCL's header and library",
            got="missing: " + "; ".join(name for name, _, _ in missing),
            evidence="\n".join(
                f"{name} was looked for at {', '.join(map(str, places))}" for name, places, _ in missing
            ),
            hint="; ".join(dict.fromkeys(hint for _, _, hint in missing)),
        )
    return Toolkit(nvcc=nvcc, nccl_header=header, nccl_library=library)


def _compilers(environment: Mapping[str, str], packages: Path, root: Path) -> Iterator[Path]:
    for name in ("HOROVOD_CUDA_HOME", "CUDA_HOME"):
        if environment.get(name):
            yield Path(environment[name]) / "bin" / "nvcc"
    found = shutil.which("nvcc", path=environment.get("PATH", os.defpath))
    if found is not None:
        yield Path(found)
    yield root / "usr/local/cuda/bin/nvcc"
    yield root / "usr/bin/nvcc"
    yield from (packages / "nvidia" / name / "bin" / "nvcc" for name in ("cu13", "cu12", "cuda_nvcc"))


def _nccl_homes(environment: Mapping[str, str], packages: Path, root: Path) -> Iterator[Path]:
    for name in ("HOROVOD_NCCL_HOME", "NCCL_HOME"):
        if environment.get(name):
            yield Path(environment[name])
    yield packages / "nvidia" / "nccl"
    yield root / "usr"
    yield root / "usr/local/cuda"


def _headers(home: Path) -> Iterator[Path]:
    yield home / "include" / "nccl.h"


def _libraries(home: Path) -> Iterator[Path]:
    """With its plain name first: a linker looks for nothing else."""
    folders = [
        home / "lib",
        home / "lib64",
        home / "lib" / "x86_64-linux-gnu",
        home / "lib/aarch64-linux-gnu",
    ]
    yield from (folder / "libnccl.so" for folder in folders)
    for folder in folders:
        yield from sorted(folder.glob("libnccl.so.*"))


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _nvcc_version(nvcc: Path) -> str:
    told = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release (\d+\.\d+)", told)
    return found[1] if found else "?"


def _nccl_version(header: Path) -> str:
    numbers = dict(
        re.findall(r"#define NCCL_(MAJOR|MINOR|PATCH)\s+(\d+)", header.read_text(errors="replace"))
    )
    return ".".join(numbers.get(name, "?") for name in ("MAJOR", "MINOR", "PATCH"))
