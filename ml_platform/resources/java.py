"""Which Java there is, asked in a tenth of a second before anything waits for it, and what speeds it up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ml_platform.errors import ResourceStartError

MINIMUM = 17
HOW_TO_GET_IT = (
    f"install Java {MINIMUM} or later, or set JAVA_HOME to it "
    "(Debian and Ubuntu: apt-get install openjdk-17-jre-headless)"
)


@dataclass(frozen=True)
class Java:
    """An installed Java."""

    path: Path
    version: int


def check_java() -> Java:
    """The Java that Spark will use: of `$JAVA_HOME`, else of `$PATH`.

    Raises:
        ResourceStartError: There is none, or it is older than Spark needs.
    """
    path = _path()
    answer = _version_text(path)
    found = re.search(r'version "(?:1\.)?(\d+)', answer)
    if found is None:
        raise ResourceStartError(f"{path} does not say its version", evidence=answer, hint=HOW_TO_GET_IT)
    version = int(found.group(1))
    if version < MINIMUM:
        raise ResourceStartError(
            "Spark cannot start: Java is too old",
            wanted=f"Java {MINIMUM} or later",
            got=f"Java {version} ({path})",
            hint=HOW_TO_GET_IT,
        )
    return Java(path, version)


def class_archive(environment: Path = Path(sys.prefix)) -> Path | None:
    """Spark's classes as set-up has archived them: a JVM maps them instead of loading 15,000 anew.

    Its name holds its size, as a JVM crashes on one that was cut short. One of another Java or of other
    jars it leaves alone.
    """
    found = sorted(environment.glob("spark-classes-*.jsa"))
    return next((file for file in found if file.stem == f"spark-classes-{file.stat().st_size}"), None)


def _path() -> Path:
    named = os.environ.get("JAVA_HOME")
    if named:
        path = Path(named) / "bin" / "java"
        if not os.access(path, os.X_OK):
            raise ResourceStartError(
                "Spark cannot start: there is no Java where JAVA_HOME points",
                wanted=f"an executable {path}",
                hint=HOW_TO_GET_IT,
            )
        return path
    found = shutil.which("java")
    if found is None:
        raise ResourceStartError(
            "Spark cannot start: there is no Java",
            wanted="java on PATH, or JAVA_HOME",
            hint=HOW_TO_GET_IT,
        )
    return Path(found)


def _version_text(path: Path) -> str:
    try:
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResourceStartError(f"{path} does not run", got=error, hint=HOW_TO_GET_IT) from error
    return answer.stderr + answer.stdout
