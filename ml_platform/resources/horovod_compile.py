"""Compiling Horovod's sdist into a wheel, without root and without system packages.

The sources are changed in one place: the list of C++ files loses Horovod's operations for XLA, which
need headers that TensorFlow's wheel does not ship. Ranks run with `jit_compile=False`, so those
operations are never called. For GPUs in a second one: TensorFlow no longer exports the function that gave
Horovod the CUDA stream of a device.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ml_platform.errors import ResourceStartError
from ml_platform.resources.cuda_toolkit import Toolkit
from ml_platform.resources.horovod_build import REQUIREMENTS, Recipe, Say

PROGRESS_EVERY_S = 10
TAIL_LINES = 20
INCLUDES = ("string", "cstdint", "stdexcept")
"""Headers that Horovod's sources use and do not name: since GCC 13 the others no longer bring them along."""
GIB_PER_COMPILER = 2
"""Memory that one compiler of TensorFlow's headers may take."""
GET_COMPILER = (
    "Debian, Ubuntu: apt install g++ make python3-dev; Fedora: dnf install gcc-c++ make python3-devel"
)
SMOKE = "import horovod.tensorflow as hvd; hvd.init(); assert hvd.size() == 1; hvd.shutdown()"


class NotFetchedError(ResourceStartError):
    """Sources or tools did not come: a matter of the network, worth another try at any time."""


def compile_wheel(recipe: Recipe, cache: Path, say: Say, toolkit: Toolkit | None = None) -> Path:
    """Download, verify, patch, compile, try out; then move the result to `cache / recipe.key`.

    The caller holds the cache's lock. Takes some four minutes of two cores and 1 GiB of disk.

    Returns:
        The wheel's path in the cache; build.json and build.log lie beside it.
    Raises:
        ResourceStartError: Something is missing or a step failed; with the compiler's last lines.
    """
    _refuse_missing_tools()
    with _work_folder(cache) as work:
        log = work / "build.log"
        try:
            wheel = _build(recipe, work, say, toolkit)
        except ResourceStartError as error:
            kept = shutil.copyfile(log, cache / f"{recipe.key}.log")
            error.hint = f"the whole log: {kept}; {error.hint or GET_COMPILER}"
            raise
        return _keep(recipe, wheel, log, cache / recipe.key)


def install_wheel(wheel: Path) -> None:
    """Put the wheel into this environment; its dependencies are pinned with everything else."""
    command = ["install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheel)]
    done = subprocess.run(_pip(*command), env=_pip_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ResourceStartError("Horovod cannot be installed", got=str(wheel), evidence=done.stderr)


def toolchain() -> str:
    """What compiles here, in one line: compiler, its version, make, Python's headers, flags, includes."""
    compiler = _compiler()
    version = "none"
    if compiler is not None:
        told = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
        version = (told.stdout.splitlines() or ["silent"])[0]
    flags = [
        f"{name}={os.environ[name]}" for name in ("CC", "CXX", "CXXFLAGS", "LDFLAGS") if name in os.environ
    ]
    found = (str(compiler), version, str(shutil.which("make")), str(_headers().is_file()))
    return " ".join([*found, *flags, *INCLUDES])


def _build(recipe: Recipe, work: Path, say: Say, toolkit: Toolkit | None) -> Path:
    tools = work / "tools"
    say("fetching Horovod's sources and build tools")
    requirements = ["--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS / "build.txt")]
    _run(_pip("install", "--target", str(tools), *requirements), work, _pip_environment())
    sources = _patched(_unpacked(_sdist(recipe, work, tools), work / "unpacked"))
    if toolkit is not None:
        _patch_for_gpus(sources)
    command = [sys.executable, "setup.py", "bdist_wheel", "-d", str(work / "wheel")]
    told = "compiling Horovod, about 2-4 minutes"
    say(told)
    cuda = {} if toolkit is None else toolkit.environment(work / "links")
    _run(command, work, _build_environment(recipe, tools) | cuda, folder=sources, say=say, doing=told)
    wheel = _only_wheel(work / "wheel")
    say("trying out the new Horovod")
    shutil.unpack_archive(wheel, work / "trial", "zip")
    _run([sys.executable, "-c", SMOKE], work, {**os.environ, "PYTHONPATH": str(work / "trial")}, folder=work)
    return wheel


# ── What must be there ───────────────────────────────────────────────────────────────────────────


def _refuse_missing_tools() -> None:
    missing = [name for name, there in _tools().items() if not there]
    if missing:
        raise ResourceStartError(
            "Horovod cannot be built", wanted="a C++ compiler, make, pip and Python's headers",
            got=f"missing: {', '.join(missing)}", hint=GET_COMPILER,
        )  # fmt: skip


def _tools() -> dict[str, bool]:
    pip = subprocess.run(_pip("--version"), capture_output=True, check=False)
    return {
        "C++ compiler (c++)": _compiler() is not None,
        "make": shutil.which("make") is not None,
        f"Python's headers ({_headers()})": _headers().is_file(),
        "pip": pip.returncode == 0,
    }


def _compiler() -> str | None:
    """The program that CMake will take."""
    named = os.environ.get("CXX")
    return shutil.which(named.split()[0]) if named else shutil.which("c++") or shutil.which("g++")


def _headers() -> Path:
    return Path(sysconfig.get_paths()["include"]) / "Python.h"


# ── Sources ──────────────────────────────────────────────────────────────────────────────────────


def _sdist(recipe: Recipe, work: Path, tools: Path) -> Path:
    """The sdist, by the user's own pip settings; pip and this function both check its digest."""
    pin = ["--require-hashes", "-r", str(REQUIREMENTS / "horovod.txt")]
    kind = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", str(work)]
    _run(_pip("download", *kind, *pin), work, _pip_environment() | {"PYTHONPATH": str(tools)})
    sdist = work / f"horovod-{recipe.horovod}.tar.gz"
    got = hashlib.sha256(sdist.read_bytes()).hexdigest() if sdist.is_file() else "no such file"
    if got != recipe.sdist_sha256:
        raise ResourceStartError(f"{sdist.name} is not the pinned one", wanted=recipe.sdist_sha256, got=got)
    return sdist


def _unpacked(sdist: Path, folder: Path) -> Path:
    """Unpack after a look at every member: plain files and folders, all below one folder."""
    top = sdist.name.removesuffix(".tar.gz")
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            parts = Path(member.name).parts
            if parts[:1] != (top,) or ".." in parts or not (member.isfile() or member.isdir()):
                raise ResourceStartError(
                    f"{sdist.name} holds a member that is refused",
                    wanted=f"files below {top}/",
                    got=member.name,
                )
        if hasattr(tarfile, "data_filter"):  # Python 3.11.0 to 3.11.3 lack it
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder)
    return folder / top


def _patched(sources: Path) -> Path:
    file = sources / "horovod" / "tensorflow" / "CMakeLists.txt"
    lines = file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if "xla_mpi_ops.cc" not in line]
    if len(lines) - len(kept) != 1:
        raise ResourceStartError(
            "Horovod's sources are not those that the patch was written for",
            wanted="one line with xla_mpi_ops.cc in horovod/tensorflow/CMakeLists.txt",
            got=f"{len(lines) - len(kept)} lines",
        )
    file.write_text("".join(kept))
    return sources


_STREAM_DECLARED = """// Forward declaration of AsGpuStreamValue
namespace stream_executor {
namespace gpu {
GpuStreamHandle AsGpuStreamValue(Stream* stream);
} // namespace stream_executor
} // namespace gpu
"""
_STREAM_TYPES_END = "#endif // TENSORFLOW_VERSION >= 2011000000\n"
_STREAM_DEFINED = """namespace stream_executor {
namespace gpu {
inline GpuStreamHandle AsGpuStreamValue(Stream* stream) {
  return static_cast<GpuStreamHandle>(stream->platform_specific_handle().stream);
}
} // namespace gpu
} // namespace stream_executor
"""


def _patch_for_gpus(sources: Path) -> None:
    """Ask the stream itself for its handle, after the headers that say what one is."""
    file = sources / "horovod" / "tensorflow" / "mpi_ops.cc"
    text = file.read_text()
    end = f"{_STREAM_TYPES_END}#endif // HAVE_GPU\n"
    if text.count(_STREAM_DECLARED) != 1 or text.count(end) != 1:
        raise ResourceStartError(
            "Horovod's sources are not those that the patch for GPUs was written for",
            wanted="one declaration of AsGpuStreamValue in horovod/tensorflow/mpi_ops.cc",
            got=f"{text.count(_STREAM_DECLARED)} declarations, {text.count(end)} ends of the types",
        )
    patched = text.replace(_STREAM_DECLARED, "").replace(
        end, f"{_STREAM_TYPES_END}{_STREAM_DEFINED}#endif // HAVE_GPU\n"
    )
    file.write_text(patched)


# ── Running a step ───────────────────────────────────────────────────────────────────────────────


def _build_environment(recipe: Recipe, tools: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in {"MFLAGS", "MAKELEVEL"}}
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    # Always set: below `make setup` the variable holds flags of that make, and one compiler would run.
    env["MAKEFLAGS"] = f"-j{max(1, min(len(os.sched_getaffinity(0)), int(memory_gib / GIB_PER_COMPILER)))}"
    env["CXXFLAGS"] = " ".join([env.get("CXXFLAGS", ""), *(f"-include {name}" for name in INCLUDES)]).strip()
    env["PYTHONPATH"] = str(tools)
    env["PATH"] = f"{tools / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}"
    env["HOROVOD_CMAKE"] = str(tools / "bin" / "cmake")
    env["HOROVOD_LOCAL_VERSION"] = recipe.local_version
    return env | recipe.flags


def _pip(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pip", *arguments]


def _pip_environment() -> dict[str, str]:
    return {**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


def _run(
    command: Sequence[str],
    work: Path,
    env: Mapping[str, str],
    *,
    folder: Path | None = None,
    say: Say = lambda _: None,
    doing: str = "",
) -> None:
    """Run one step into work/build.log; say `doing` and the seconds so far while it lasts."""
    log = work / "build.log"
    started = time.monotonic()
    with log.open("ab") as file:
        file.write(f"\n$ {' '.join(command)}\n".encode())
        file.flush()
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=file, stderr=subprocess.STDOUT)
        try:
            while _lasts(process):
                say(f"{doing}, {time.monotonic() - started:.0f} s so far")
        except BaseException:
            _kill(process)
            raise
    if process.returncode:
        raise _step_failed(command, process.returncode, log)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With its compilers. They stay in our process group, so a kill of the whole group reaches them too."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        for below in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                below.kill()
    process.kill()
    process.wait()


def _lasts(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(PROGRESS_EVERY_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def _step_failed(command: Sequence[str], code: int, log: Path) -> ResourceStartError:
    said = log.read_text(errors="replace").rpartition("\n$ ")[2]
    fault = re.search(r"^.*\berror\b.*$", said.partition("\n")[2], re.IGNORECASE | re.MULTILINE)
    got = f"exit code {code}" + (f", {fault[0].strip()[:160]}" if fault else "")
    evidence = "\n".join(last_lines(said))
    if "pip" in command:
        hint = "is the package index reachable? pip's own settings are used"
        return NotFetchedError(
            "Horovod cannot be built: its sources or tools were not fetched",
            got=got,
            evidence=evidence,
            hint=hint,
        )
    step = "the new library does not load" if "-c" in command else "the compiler failed"
    return ResourceStartError(f"Horovod cannot be built: {step}", got=got, evidence=evidence)


def last_lines(text: str, count: int = TAIL_LINES) -> list[str]:
    """The last lines that were said, without the traceback of the setup.py that ran the compiler."""
    said, _, traceback = text.rpartition("Traceback (most recent call last):")
    if "CalledProcessError" not in traceback:
        said = text
    return [line for line in said.splitlines() if line.strip()][-count:]


# ── Keeping the result ───────────────────────────────────────────────────────────────────────────


@contextmanager
def _work_folder(cache: Path) -> Iterator[Path]:
    """A new folder, after those that killed builds left behind: the lock says that none is alive."""
    for left_behind in cache.glob(".building-*"):
        shutil.rmtree(left_behind, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=".building-", dir=cache))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _only_wheel(folder: Path) -> Path:
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ResourceStartError("Horovod's build ended without a wheel", wanted="one", got=len(wheels))
    return wheels[0]


def _keep(recipe: Recipe, wheel: Path, log: Path, place: Path) -> Path:
    """Move wheel, log and build.json to their place in one rename."""
    done = wheel.parent / "done"
    done.mkdir()
    shutil.copyfile(log, done / "build.log")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    built = {"wheel": wheel.name, "sha256": digest, "recipe": recipe.model_dump()}
    (done / "build.json").write_text(json.dumps(built, indent=2))
    shutil.move(wheel, done / wheel.name)
    if place.exists():
        shutil.rmtree(place)
    done.rename(place)
    return place / wheel.name
