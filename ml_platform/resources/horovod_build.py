"""Horovod for the installed TensorFlow: is it there, and which build belongs here.

Horovod publishes no wheel. `ensure_horovod` compiles its sdist once and keeps the wheel in the user's
cache (`$XDG_CACHE_HOME` or ~/.cache, folder ml-platform/horovod) under a key over everything the build
depends on; every later environment installs it from there in seconds. The installed version tells its
build: 0.28.1+k<key>.tf<TensorFlow's libraries>. How it is compiled: `horovod_compile`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from ml_platform.errors import ResourceStartError
from ml_platform.resources.cuda_toolkit import Toolkit, find_toolkit
from ml_platform.specs.base import Spec

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
FLAGS = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_WITHOUT_MPI": "1",
}
"""What Horovod's setup.py is told: TensorFlow alone, Gloo between ranks, no MPI."""
GPU_FLAGS = {"HOROVOD_GPU_OPERATIONS": "NCCL"}
"""What it is told beside them for GPUs: tensors stay there, and NCCL carries them."""
PATCH = "1"
"""Number of the changes that `horovod_compile` makes to the sources."""
GPU_PATCH = "gpu-1"
"""The same of those that only a build for GPUs needs."""
COMMAND = "python -m ml_platform build-horovod"
ANY_TOOLCHAIN = ""
"""Stands with a failure that had nothing to do with the tools: it is tried again."""

Say = Callable[[str], None]


class Availability(Spec):
    """Whether ranks can train together here, and why, in one line."""

    ok: bool
    reason: str


class Recipe(Spec):
    """Everything that a build depends on. Two equal recipes share one wheel."""

    horovod: str
    sdist_sha256: str
    tensorflow: str
    tensorflow_abi: str
    python: str
    platform: str
    flags: dict[str, str] = FLAGS
    patch: str = PATCH

    @property
    def key(self) -> str:
        """64 hexadecimal digits over all fields."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()

    @property
    def local_version(self) -> str:
        """What stands behind the + of the installed version. Letters first: bare digits lose their zeros."""
        return f"k{self.key[:12]}.tf{self.tensorflow_abi[:12]}{'.nccl' if self.for_gpus else ''}"

    @property
    def for_gpus(self) -> bool:
        return "HOROVOD_GPU_OPERATIONS" in self.flags


def horovod_available() -> Availability:
    """Whether the installed Horovod was built for the installed TensorFlow and this Python.

    Reads a few small files; imports neither of them.
    """
    tensorflow = installed_tensorflow()
    if tensorflow is None:
        return Availability(ok=False, reason="TensorFlow is not installed")
    try:
        horovod = metadata.distribution("horovod")
    except metadata.PackageNotFoundError:
        return Availability(ok=False, reason=_why_missing())
    fault = _fault(horovod, tensorflow)
    if fault is not None:
        return Availability(ok=False, reason=f"{fault}; build it anew: {COMMAND}")
    version = horovod.version.partition("+")[0]
    nccl = ", with NCCL" if horovod.version.endswith(".nccl") else ""
    return Availability(ok=True, reason=f"Horovod {version} built for TensorFlow {tensorflow.version}{nccl}")


def ensure_horovod(*, again: bool = False, gpu: bool = False, say: Say = lambda _: None) -> Availability:
    """Install the Horovod that belongs here: keep it, take it from the cache, or compile it.

    Args:
        gpu: The build with NCCL, for ranks with a GPU each.
        again: Compile although the same build failed before and nothing has changed since.
        say: Hears what happens; every ten seconds while the compiler runs.
    Raises:
        ResourceStartError: It cannot be built. The reason is kept for `horovod_available`.
    """
    from ml_platform.resources import horovod_compile

    toolkit = find_toolkit() if gpu else None
    recipe = present_recipe(toolkit)
    if _installed_local_version() == recipe.local_version:
        return horovod_available()
    with _cache_lock(say):
        if not again:
            _refuse_known_failure(recipe, horovod_compile.toolchain())
        wheel = cached_wheel(recipe) or _built(recipe, toolkit, say)
        _failure_file(recipe).unlink(missing_ok=True)
        say(f"installing {wheel.name}")
        horovod_compile.install_wheel(wheel)
    return horovod_available()


def present_recipe(toolkit: Toolkit | None = None) -> Recipe:
    """The build that belongs to this Python, this TensorFlow and the pinned sdist; with a toolkit, for GPUs.

    Raises:
        ResourceStartError: TensorFlow or the pin is missing.
    """
    tensorflow = installed_tensorflow()
    if tensorflow is None:
        raise ResourceStartError(
            "Horovod cannot be built", wanted="TensorFlow in this environment", got="none", hint="make setup"
        )
    version, sha256 = pinned_sdist()
    cuda = "" if toolkit is None else toolkit.version
    return Recipe(
        horovod=version,
        sdist_sha256=sha256,
        tensorflow=tensorflow.version,
        tensorflow_abi=abi(tensorflow),
        python=str(sysconfig.get_config_var("EXT_SUFFIX")),
        platform=" ".join(filter(None, (sysconfig.get_platform(), *platform.libc_ver(), cuda))),
        flags=FLAGS if toolkit is None else FLAGS | GPU_FLAGS,
        patch=PATCH if toolkit is None else f"{PATCH} {GPU_PATCH}",
    )


def pinned_sdist() -> tuple[str, str]:
    """Version and sha256 of the sdist, from requirements/horovod.txt."""
    file = REQUIREMENTS / "horovod.txt"
    text = file.read_text() if file.is_file() else ""
    found = re.search(r"^horovod==(\S+) \\\n\s+--hash=sha256:([0-9a-f]{64})$", text, re.MULTILINE)
    if found is None:
        raise ResourceStartError(
            "Horovod cannot be built: its sdist is not pinned",
            wanted=f"a line horovod==VERSION --hash=sha256:… in {file}",
            hint="build in a clone of the repository; the wheel of ml-platform does not carry the pins",
        )
    return found[1], found[2]


def installed_tensorflow() -> metadata.Distribution | None:
    """The distribution that provides `tensorflow`, without importing it."""
    for name in ("tensorflow-cpu", "tensorflow"):
        try:
            return metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def abi(tensorflow: metadata.Distribution) -> str:
    """sha256 over the names and digests of TensorFlow's libraries, as its RECORD lists them."""
    lines = (tensorflow.read_text("RECORD") or "").splitlines()
    libraries = sorted(line for line in lines if re.search(r"\.so[.,0-9]", line))
    return hashlib.sha256("\n".join([tensorflow.version, *libraries]).encode()).hexdigest()


def cache() -> Path:
    """Folder of the builds, shared by all clones of this user."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ml-platform" / "horovod"


def cached_wheel(recipe: Recipe) -> Path | None:
    """The wheel of an earlier build, when it is whole."""
    folder = cache() / recipe.key
    try:
        built = json.loads((folder / "build.json").read_text())
        wheel = folder / str(built["wheel"])
        return wheel if hashlib.sha256(wheel.read_bytes()).hexdigest() == built["sha256"] else None
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _built(recipe: Recipe, toolkit: Toolkit | None, say: Say) -> Path:
    """Compile, and remember a failure."""
    from ml_platform.resources import horovod_compile

    try:
        return horovod_compile.compile_wheel(recipe, cache(), say, toolkit)
    except horovod_compile.NotFetchedError as error:
        _record_failure(recipe, ANY_TOOLCHAIN, error)
        raise
    except ResourceStartError as error:
        _record_failure(recipe, horovod_compile.toolchain(), error)
        raise
    except OSError as error:
        failure = ResourceStartError(
            f"Horovod cannot be built: {cache()} cannot be written",
            got=f"{type(error).__name__}: {error.strerror}",
        )
        raise failure from error


def _fault(horovod: metadata.Distribution, tensorflow: metadata.Distribution) -> str | None:
    try:
        told_file = Path(str(horovod.locate_file("horovod/metadata.json")))
        built_for = json.loads(told_file.read_text())["tensorflow"]
    except (OSError, ValueError, KeyError):
        return "Horovod was installed without its library for TensorFlow"
    if built_for != tensorflow.version:
        return f"Horovod was built for TensorFlow {built_for}, installed is {tensorflow.version}"
    suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
    if not Path(str(horovod.locate_file(f"horovod/tensorflow/mpi_lib{suffix}"))).is_file():
        return f"Horovod has no library for this Python (mpi_lib{suffix})"
    told = re.search(r"\+k\w+\.tf(\w+?)(?:\.nccl)?$", horovod.version)
    if told is not None and told[1] != abi(tensorflow)[:12]:
        return f"Horovod was built for another build of TensorFlow {tensorflow.version}"
    return None


def _installed_local_version() -> str | None:
    try:
        return metadata.version("horovod").partition("+")[2] if horovod_available().ok else None
    except metadata.PackageNotFoundError:
        return None


# ── Failures are remembered ──────────────────────────────────────────────────────────────────────


class _Failure(Spec):
    """A build that failed, with the tools that were there: other tools are worth another try."""

    toolchain: str
    what: str
    got: str | None
    hint: str | None

    @property
    def reason(self) -> str:
        return f"{self.what}: {self.got}" if self.got else self.what


def _why_missing() -> str:
    try:
        failure = _known_failure(present_recipe())
    except ResourceStartError as error:
        return error.what
    return failure.reason if failure else f"Horovod is not built yet: {COMMAND}"


def _failure_file(recipe: Recipe) -> Path:
    return cache() / f"{recipe.key}.failed.json"


def _known_failure(recipe: Recipe) -> _Failure | None:
    try:
        return _Failure.model_validate_json(_failure_file(recipe).read_text())
    except (OSError, ValueError):
        return None


def _record_failure(recipe: Recipe, toolchain: str, error: ResourceStartError) -> None:
    failure = _Failure(toolchain=toolchain, what=error.what, got=error.got, hint=error.hint)
    _failure_file(recipe).write_text(failure.model_dump_json())


def _refuse_known_failure(recipe: Recipe, toolchain: str) -> None:
    failure = _known_failure(recipe)
    if failure is not None and failure.toolchain == toolchain:
        raise ResourceStartError(
            f"{failure.what} (as before; the tools are the same)",
            got=failure.got,
            hint=f"{failure.hint or 'change what is missing'}; to try all the same: {COMMAND} --again",
        )


@contextmanager
def _cache_lock(say: Say) -> Iterator[None]:
    """One build at a time for this user; a second waits and then finds the first one's wheel."""
    try:
        cache().mkdir(parents=True, exist_ok=True)
        lock = (cache() / ".lock").open("w")
    except OSError as error:
        raise ResourceStartError(
            f"Horovod cannot be built: no folder {cache()}",
            got=f"{type(error).__name__}: {error.strerror}",
            hint="name a folder that you may write in XDG_CACHE_HOME",
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build of Horovod is under way; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
