"""Set-up of a clone: an environment in .venv that holds exactly what requirements/*.txt pin.

    scripts/setup.sh              everything that the main job needs
    scripts/setup.sh --packages   without Java and Horovod: what test-fast and check need
    scripts/setup.sh --installer  pip and uv alone: what `make lock` needs
    scripts/setup.sh --gpu        everything, with CUDA: remembered until --cpu

Works in steps. A step's stamp is removed before it starts and written after it ended, and holds a
digest of what the step depends on, so an interrupted set-up is simply repeated and an unchanged one
costs the reading of a few files. Nothing here is imported from outside Python's own library.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMPS = VENV / "set-up"
PYTHON = VENV / "bin" / "python"
UV = VENV / "bin" / "uv"
REQUIREMENTS = ROOT / "requirements"
JAVA_WANTED = 17
BUILD_FAILED = 5
QUIET = [] if sys.stderr.isatty() else ["--quiet"]
"""A terminal shows how far uv's downloads are; a log does not need 200 names."""

GET_JAVA = (
    "Debian, Ubuntu: apt install openjdk-17-jre-headless; Fedora: dnf install java-21-openjdk-headless; "
    "or point JAVA_HOME at one"
)
CPU_BUILDS = ("tensorflow-cpu", "xgboost-cpu")
"""Packages of runtime.txt whose place those of gpu.txt take."""

GET_VENV = "Debian, Ubuntu: apt install python3-venv"

UV_SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
}
"""pip's settings, and the variables by which uv takes the same."""


class SetupError(Exception):
    """One line that a person can act on."""


def say(message: str) -> None:
    print(f"setup: {message}", file=sys.stderr, flush=True)


# ── Steps ────────────────────────────────────────────────────────────────────────────────────────


def digest(*parts: Path | str) -> str:
    """Of files by their content, of strings as they are."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part.read_bytes() if isinstance(part, Path) else part.encode())
        state.update(b"\0")
    return state.hexdigest()


def step(name: str, key: str, work: Callable[[], bool]) -> bool:
    """Do the work unless the stamp says that it is done for this key. Returns whether it was done now.

    Work that returns False is not finished and gets no stamp: the next set-up tries it again.
    """
    stamp = STAMPS / name
    if stamp.is_file() and stamp.read_text() == key:
        return False
    stamp.unlink(missing_ok=True)
    if not work():
        return False
    STAMPS.mkdir(exist_ok=True)
    fresh = stamp.with_suffix(".new")
    fresh.write_text(key)
    fresh.replace(stamp)
    return True


def run(*command: object, env: Mapping[str, str] | None = None) -> None:
    words = [str(word) for word in command]
    ended = subprocess.run(words, cwd=ROOT, env=None if env is None else dict(env), check=False)
    if ended.returncode:
        raise SetupError(f"`{' '.join(words)}` ended with exit code {ended.returncode}; its lines are above")


# ── What each step does ──────────────────────────────────────────────────────────────────────────


def make_environment() -> bool:
    """A new, empty environment, made by the Python below the one that runs."""
    if VENV.exists():
        say("making .venv anew: it is half made, was moved, or belongs to another Python")
        shutil.rmtree(VENV)
    base = getattr(sys, "_base_executable", None) or sys.executable
    made = subprocess.run([base, "-Im", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if made.returncode:
        said = (made.stdout + made.stderr).strip().splitlines() or ["nothing was said"]
        raise SetupError(f"{base} cannot make an environment ({said[-1].strip()}). {GET_VENV}")
    return True


def install_installer() -> bool:
    say("installing pip and uv")
    run(PYTHON, "-Im", "pip", "install", "-q", "--require-hashes", "-r", REQUIREMENTS / "bootstrap.txt")
    return True


def install_packages() -> bool:
    say("installing the Python packages of requirements/runtime.txt and dev.txt")
    files = [REQUIREMENTS / f"{name}.txt" for name in ("bootstrap", "runtime", "dev")]
    if for_gpus():
        files[1] = VENV / "runtime-for-gpus.txt"
        files[1].write_text(without_packages((REQUIREMENTS / "runtime.txt").read_text(), CPU_BUILDS))
        files.append(REQUIREMENTS / "gpu.txt")
    # Compiled once, here: where PYTHONDONTWRITEBYTECODE is set, each rank would spend 10 s on TensorFlow.
    flags = [
        "--require-hashes",
        "--build-constraints",
        REQUIREMENTS / "build.txt",
        "--compile-bytecode",
        *QUIET,
    ]
    for name in ("project", "horovod"):  # no file names them, so a sync removes them
        (STAMPS / name).unlink(missing_ok=True)
    run(UV, "pip", "sync", "--python", PYTHON, *flags, *files, env=uv_environment())
    return True


def install_project() -> bool:
    """The clone itself, editable and whole: flows and tasks are importable from any folder."""
    flags = ["-q", "--no-deps", "--no-build-isolation", "--config-settings", "editable_mode=compat"]
    run(UV, "pip", "install", "--python", PYTHON, *flags, "--editable", ROOT, env=uv_environment())
    return True


def build_horovod() -> bool:
    """A failure is no failure of set-up: flows then train on one rank, and say so."""
    command = [str(PYTHON), "-m", "ml_platform", "build-horovod", *(["--gpu"] if for_gpus() else [])]
    ended = subprocess.run(command, cwd=ROOT, check=False)
    if ended.returncode == BUILD_FAILED:
        say("warning: without Horovod flows train on one rank; the reason is above. Set-up goes on")
    elif ended.returncode:
        raise SetupError(
            f"`{' '.join(command)}` ended with exit code {ended.returncode}; its lines are above"
        )
    return ended.returncode == 0


def archive_spark_classes() -> bool:
    """A failure is no failure of set-up: Spark then starts as it does anywhere else, in twice the time."""
    say("running Spark once, so that from now on it starts in half the time")
    for old in VENV.glob("spark-classes*.jsa"):
        old.unlink()
    fresh = VENV / "spark-classes.jsa"
    options = f'"-XX:ArchiveClassesAtExit={fresh}" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC'
    loopback = dict.fromkeys(("driver.host", "driver.bindAddress"), "127.0.0.1")
    settings = {"master": "local[2]", "ui.enabled": "false", "driver.defaultJavaOptions": options, **loopback}
    conf = [word for name, value in settings.items() for word in ("--conf", f"spark.{name}={value}")]
    command = [VENV / "bin" / "spark-submit", *conf, ROOT / "scripts" / "spark_classes.py"]
    env = dict(os.environ, PYSPARK_PYTHON=str(PYTHON), PYSPARK_DRIVER_PYTHON=str(PYTHON))
    words = [str(word) for word in command]
    ended = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    if ended.returncode or not fresh.is_file():
        last = [*(ended.stdout + ended.stderr).splitlines(), "it said nothing"][-12:]
        say("warning: no archive of Spark's classes; set-up goes on. The last lines:\n" + "\n".join(last))
        return False
    # Its size in its name: a JVM crashes on an archive that was cut short.
    with fresh.open("rb") as file:
        os.fsync(file)
    fresh.rename(VENV / f"spark-classes-{fresh.stat().st_size}.jsa")
    return True


# ── CPU or GPU ───────────────────────────────────────────────────────────────────────────────────


def for_gpus() -> bool:
    """Whether this clone was told `--gpu`: the next `make setup` must not go back."""
    return (STAMPS / "for-gpus").is_file()


def remember_device(gpu: bool) -> None:
    """Keep what was asked for, beside the stamps."""
    if gpu:
        STAMPS.mkdir(parents=True, exist_ok=True)
        (STAMPS / "for-gpus").touch()
    else:
        (STAMPS / "for-gpus").unlink(missing_ok=True)


def without_packages(requirements: str, names: tuple[str, ...]) -> str:
    """Pinned requirements less some packages: a line that begins one, and its hashes below it."""
    kept, skipping = [], False
    for line in requirements.splitlines(keepends=True):
        if not line[:1].isspace() and not line.startswith("#"):
            skipping = line.split("==")[0] in names
        if not skipping:
            kept.append(line)
    return "".join(kept)


# ── What the machine must have ───────────────────────────────────────────────────────────────────


def check_java() -> str:
    """What Java says of its version."""
    java = shutil.which("java")
    if os.environ.get("JAVA_HOME"):
        java = shutil.which("java", path=str(Path(os.environ["JAVA_HOME"]) / "bin"))
    if java is None:
        where = f"JAVA_HOME={os.environ['JAVA_HOME']}" if os.environ.get("JAVA_HOME") else "PATH"
        raise SetupError(f"Java {JAVA_WANTED} or newer is needed; none found by {where}. {GET_JAVA}")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)[^"]*"', told)
    if found is None or int(found[1]) < JAVA_WANTED:
        version = found[0] if found else "none that runs"
        raise SetupError(f"Java {JAVA_WANTED} or newer is needed; found {version} ({java}). {GET_JAVA}")
    return told


def uv_environment() -> dict[str, str]:
    """The environment, with what the user told pip (index, certificates) told to uv as well."""
    env = dict(os.environ)
    told = pip_settings()
    for setting, variable in UV_SETTINGS.items():
        values = told.get(setting, "").split()
        if setting == "find-links":
            values = [value for value in values if "://" in value or Path(value).exists()]
        if values and not env.get(variable):
            env[variable] = ("," if setting == "find-links" else " ").join(values)
    if told.get("extra-index-url"):
        # As pip does. Every file has a hash, so that no index can slip in another one.
        env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return env


def pip_settings() -> dict[str, str]:
    """pip's effective settings: files, then those of `install`, then PIP_… variables, later ones win."""
    command = [PYTHON, "-Im", "pip", "config", "list"]
    listed = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, setting = name.partition(".")
        if section in found:
            found[section][setting] = str(ast.literal_eval(value))
    return found["global"] | found["install"] | found[":env:"]


# ── The whole ────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def alone() -> Iterator[None]:
    """One set-up at a time in this clone; a second waits."""
    with Path(__file__).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up of this clone is under way; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def set_up(extent: str, *, gpu: bool, java: str = "") -> bool:
    """All steps up to `extent`. A step's key contains the key before it. Returns whether one was done."""
    key = digest(str(VENV), "{}.{}".format(*sys.version_info))
    done = step("environment", key, make_environment)
    remember_device(gpu)  # a new environment has forgotten it
    key = digest(key, REQUIREMENTS / "bootstrap.txt")
    done |= step("installer", key, install_installer)
    if extent == "installer":
        return done
    key = digest(key, *(REQUIREMENTS / f"{name}.txt" for name in ("runtime", "dev", "build")))
    if gpu:
        key = digest(key, "for GPUs", REQUIREMENTS / "gpu.txt")
    done |= step("packages", key, install_packages)
    project = digest(key, ROOT / "pyproject.toml", REQUIREMENTS / "runtime.in")
    done |= step("project", project, install_project)
    if extent == "everything":
        done |= step(
            "spark-classes", digest(key, java, ROOT / "scripts" / "spark_classes.py"), archive_spark_classes
        )
        builder = ROOT / "ml_platform" / "resources" / "horovod_build.py"
        key = digest(key, REQUIREMENTS / "horovod.txt", builder)
        done |= step("horovod", key, build_horovod)
    return done


def main(arguments: list[str]) -> int:
    known = {
        (): "everything",
        ("--gpu",): "everything",
        ("--cpu",): "everything",
        ("--packages",): "packages",
        ("--installer",): "installer",
    }
    extent = known.get(tuple(arguments))
    if extent is None:
        say(f"unknown option {' '.join(arguments)}; known: --packages, --installer, --gpu, --cpu")
        return 2
    started = time.monotonic()
    try:
        java = check_java() if extent == "everything" else ""
        with alone():
            told = {"--gpu": True, "--cpu": False}.get("".join(arguments))
            done = set_up(extent, gpu=for_gpus() if told is None else told, java=java)
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted; run it again to go on")
        return 130
    if done:
        say(f"ready after {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
