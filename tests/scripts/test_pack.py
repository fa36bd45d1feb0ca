"""The packed environment runs from wherever it is unpacked, with nothing of this machine's environment."""

from __future__ import annotations

import runpy
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "pack.py"
ASK = "import json, psutil, sys, yaml; print(sys.prefix, psutil.__file__, sys.executable)"


@pytest.mark.slow
@pytest.mark.skipif("deb_system" in sysconfig.get_scheme_names(), reason="Debian's Python cannot be moved")
def test_the_environment_runs_where_it_is_unpacked_and_again_where_it_is_moved(tmp_path: Path) -> None:
    archive = tmp_path / "environment.tar.gz"
    command = [sys.executable, str(SCRIPT), "--output", str(archive), "--only", "psutil", "--also", "pyyaml"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"spark.environment: {archive}" in said
    first, second = tmp_path / "first", tmp_path / "second place"
    with tarfile.open(archive) as packed:
        packed.extractall(first, filter="data")
    first.rename(second)
    done = subprocess.run(
        [second / "bin" / "python", "-c", ASK], env={}, cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout.count(str(second)) == 3


def test_executors_get_what_ranks_import_and_not_what_flows_need() -> None:
    script = runpy.run_path(str(SCRIPT))
    names = script["distributions"](script["executor_packages"]())
    assert {"keras", "pyarrow", "pydantic", "psutil", "cloudpickle", "numpy"} <= set(names)
    assert {"prefect", "mlflow", "pyspark"}.isdisjoint(names)
    assert "mlflow-skinny" in names, "it opens models of MLflow's flavor pyfunc"
    assert "rich" in names, "flows show tables with it, and Keras does not start without it"


def test_a_package_that_is_asked_for_and_not_there_is_named(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path / "a.tar.gz"), "--also", "no-such-thing"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "not installed here: no-such-thing" in done.stderr
