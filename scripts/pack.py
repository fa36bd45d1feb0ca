"""Builds the environment that ranks and Spark executors need on other machines, to unpack anywhere.

It holds the interpreter, its standard library, and the packages that run on executors with all that they
require; not Prefect, of MLflow what opens a model alone, and not Spark, which is there already. The project's
own packages are sent with each run. Machines must have the same kind of processor, and a C library at least
as new as here.
"""

from __future__ import annotations

import argparse
import io
import re
import site
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAYS = {"prefect", "fastapi", "sqlalchemy", "mlflow", "pyspark", "cyclopts", "rich"}
"""What flows need and executors do not, unless a package of theirs requires it: Keras does `rich`."""
SPARK = "pyspark"
"""It is there already, wherever it is required."""
ALSO = ("horovod", "mlflow-skinny")
"""No lines of runtime.in: the one is compiled here, the other a part of MLflow, and enough to score with
models of its flavor pyfunc."""
SKIPPED = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages", "__pycache__"}
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
LAUNCHER = f"""#!/bin/sh
# Wherever this folder was unpacked: the interpreter finds its library beside itself.
here=$(cd "$(dirname "$0")/.." && pwd -P)
export PYTHONHOME="$here" PYTHONNOUSERSITE=1
export LD_LIBRARY_PATH="$here/lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
exec "$here/bin/{VERSION}" "$@"
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make pack", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "environment.tar.gz")
    parser.add_argument("--only", nargs="*", help="pack these packages, and what they require")
    parser.add_argument("--also", nargs="*", default=[], help="and these: what a model of yours needs, say")
    args = parser.parse_args()
    if missing := [name for name in [*(args.only or []), *args.also] if not _is_installed(name)]:
        sys.exit(f"pack: not installed here: {', '.join(missing)}\ntry: .venv/bin/python -m pip install …")
    names = distributions([*(executor_packages() if args.only is None else args.only), *args.also])
    args.output.parent.mkdir(parents=True, exist_ok=True)
    pack(names, args.output)
    print(f"{args.output}: {len(names)} packages, {args.output.stat().st_size >> 20:,} MiB")
    print(f"in a placement: spark.environment: {args.output}")


def executor_packages() -> list[str]:
    """Names in runtime.in, less those that stay at the driver."""
    lines = (ROOT / "requirements" / "runtime.in").read_text().splitlines()
    names = [
        re.split(r"[<>=!\[; ]", line, maxsplit=1)[0] for line in lines if line and not line.startswith("#")
    ]
    return [name for name in (*names, *ALSO) if name not in STAYS]


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def distributions(names: Iterable[str]) -> list[str]:
    """These and all that they require, as far as it is installed."""
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found or name == SPARK:
            continue
        try:
            requires = metadata.distribution(name).requires or []
        except metadata.PackageNotFoundError:
            continue  # of an extra, another platform, or an optional build
        found[name] = None
        waiting += [
            re.split(r"[<>=!~\[;( ]", line, maxsplit=1)[0] for line in requires if "extra ==" not in line
        ]
    return sorted(found)


def pack(names: Iterable[str], target: Path) -> None:
    """Write the archive. It appears when it is whole."""
    _refuse_odd_layout()
    unfinished = target.with_name(f"{target.name}.part")
    with tarfile.open(unfinished, "w:gz", compresslevel=1) as archive:
        _add_launcher(archive)
        for path, name in _interpreter():
            archive.add(path, name, recursive=False)
        added: set[str] = set()
        for name in names:
            for path, inside in _package(name):
                if inside not in added:
                    added.add(inside)
                    archive.add(path, f"lib/{VERSION}/site-packages/{inside}", recursive=False)
    unfinished.replace(target)


def _refuse_odd_layout() -> None:
    if not any(Path(folder).name == "site-packages" for folder in site.getsitepackages()):
        sys.exit(
            "pack: this Python keeps packages in another place than python.org's, so it cannot be moved.\n"
            "try: make setup PYTHON=… with a Python from python.org, pyenv, uv or conda"
        )


def _add_launcher(archive: tarfile.TarFile) -> None:
    entry = tarfile.TarInfo("bin/python")
    content = LAUNCHER.encode()
    entry.size, entry.mode = len(content), 0o755
    archive.addfile(entry, io.BytesIO(content))


def _interpreter() -> Iterator[tuple[Path, str]]:
    yield Path(sys.executable).resolve(), f"bin/{VERSION}"
    library = Path(sysconfig.get_config_var("LIBDIR") or "") / (sysconfig.get_config_var("INSTSONAME") or "")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and library.is_file():
        yield library.resolve(), f"lib/{library.name}"
    standard = Path(sysconfig.get_path("stdlib"))
    for path in sorted(standard.rglob("*")):
        inside = path.relative_to(standard)
        if path.is_file() and SKIPPED.isdisjoint(inside.parts):
            yield path, f"lib/{VERSION}/{inside.as_posix()}"


def _package(name: str) -> Iterator[tuple[Path, str]]:
    distribution = metadata.distribution(name)
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        outside = file.parts[0] == ".." or "__pycache__" in file.parts
        if not outside and path.is_file():
            yield path, file.as_posix()


if __name__ == "__main__":
    main()
