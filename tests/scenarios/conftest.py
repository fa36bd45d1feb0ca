"""Commands as a user types them: a process of its own, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.gangs import nurseries_of_this_process

ROOT = Path(__file__).parents[2]
AS_SHIPPED = {"ML_PLATFORM_PLACEMENTS": str(ROOT / "deployments" / "placements")}
QUICK = {"ML_PLATFORM_PLACEMENTS": str(Path(__file__).parent / "placements")}


@dataclass
class Outcome:
    """What a command left: exit code, what it printed, and the processes that outlived it."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Project:
    """A user's folder: commands run here, and `.ml-platform` appears here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / ".ml-platform"

    def run(self, module: str, *arguments: str, timeout: float = 600, **environment: str) -> Outcome:
        """`python -m module arguments`, from the repository, with this folder's home and a quick JVM."""
        with self.start(module, *arguments, **environment) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            finally:
                process.kill()
        return Outcome(process.returncode, out, err)

    def start(self, module: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """The same, without waiting for its end."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
        own = {"ML_PLATFORM_HOME": str(self.home), "PYTHONPATH": str(ROOT), **QUICK}
        env = {**inherited, **own, **environment}
        command = [sys.executable, "-m", module, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)

    def leftovers(self) -> list[str]:
        """Processes that still belong to this folder. Commands that ran in this process may have begun a
        nursery, which ends with it."""
        found, own = [], nurseries_of_this_process()
        for process in psutil.process_iter(["pid", "cmdline"]):
            if process in own:
                continue
            try:
                environment = process.environ()
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            if environment.get("ML_PLATFORM_HOME") == str(self.home):
                found.append(" ".join(process.info["cmdline"] or []))
        return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))
