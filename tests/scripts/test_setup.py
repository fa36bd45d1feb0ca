"""Set-up: steps and their stamps, the user's pip settings, and what is said when something is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/setup.py, keeping its stamps in a folder of the test."""
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "STAMPS", tmp_path)
    return module


def run_setup(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(ROOT / "scripts" / "setup.sh")]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)


def test_a_done_step_is_not_done_again(setup: ModuleType) -> None:
    done: list[int] = []
    work = lambda: done.append(1) or True  # noqa: E731
    assert setup.step("packages", "key", work)
    assert not setup.step("packages", "key", work)
    assert setup.step("packages", "another key", work)
    assert done == [1, 1]


def test_an_interrupted_step_is_done_again(setup: ModuleType) -> None:
    """Also when the requirements went back to what the stamp of before was for."""
    assert setup.step("packages", "old", lambda: True)

    def interrupted() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        setup.step("packages", "new", interrupted)
    assert setup.step("packages", "old", lambda: True)


def test_an_unfinished_step_gets_no_stamp(setup: ModuleType) -> None:
    assert not setup.step("horovod", "key", lambda: False)
    assert setup.step("horovod", "key", lambda: True)


def test_what_a_sync_of_packages_removes_is_installed_again(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After pins changed for a `make check` and went back, or after a sync that was interrupted."""
    done: list[str] = []
    monkeypatch.setattr(setup, "run", lambda *_, **__: None)
    monkeypatch.setattr(setup, "uv_environment", dict)
    for name in ("make_environment", "install_project", "build_horovod", "archive_spark_classes"):
        monkeypatch.setattr(setup, name, lambda name=name: done.append(name) or True)
    assert setup.set_up("everything", gpu=False)
    assert not setup.set_up("everything", gpu=False)
    done.clear()
    (setup.STAMPS / "packages").write_text("other pins")
    setup.set_up("packages", gpu=False)
    assert done == ["install_project"]
    setup.set_up("everything", gpu=False)
    assert done == ["install_project", "build_horovod"]


def test_the_digest_is_over_content(setup: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("a==1")
    before = setup.digest(file)
    os.utime(file, (0, 0))
    assert setup.digest(file) == before
    file.write_text("a==2")
    assert setup.digest(file) != before


def test_uv_gets_what_the_user_told_pip(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Index, mirrors and certificates of a company's network, from pip's file and variables."""
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = http://file.invalid/simple\nextra-index-url =\n  http://one.invalid\n  http://two.invalid\n"
        "[install]\nindex-url = http://install.invalid/simple\ntrusted-host = one.invalid\n"
    )
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setattr(setup, "PYTHON", Path(sys.executable))
    env = setup.uv_environment()
    assert env["UV_DEFAULT_INDEX"] == "http://install.invalid/simple"
    assert env["UV_INDEX"] == "http://one.invalid http://two.invalid"
    assert env["UV_INSECURE_HOST"] == "one.invalid"
    assert env["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    monkeypatch.setenv("PIP_INDEX_URL", "http://variable.invalid/simple")
    assert setup.uv_environment()["UV_DEFAULT_INDEX"] == "http://variable.invalid/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://own.invalid/simple")
    assert setup.uv_environment()["UV_DEFAULT_INDEX"] == "http://own.invalid/simple"


def test_a_python_that_does_not_fit_is_one_clear_line() -> None:
    said = run_setup({"PYTHON": "/bin/false"})
    assert said.returncode == 1
    (line,) = said.stderr.splitlines()
    assert line.startswith("setup: Python 3.11, 3.12 or 3.13 is needed")
    assert "apt install python3.11" in line


def test_a_missing_java_is_one_clear_line(tmp_path: Path) -> None:
    said = run_setup({"JAVA_HOME": str(tmp_path)})
    assert said.returncode == 1
    (line,) = said.stderr.splitlines()
    assert line.startswith("setup: Java 17 or newer is needed; none found by JAVA_HOME=")
    assert "openjdk-17-jre-headless" in line


@pytest.mark.parametrize("told", ["1.8.0_402", "11.0.2"])
def test_an_old_java_is_one_clear_line(tmp_path: Path, told: str) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{told}\"' >&2\n")
    java.chmod(0o755)
    said = run_setup({"JAVA_HOME": str(tmp_path)})
    assert said.returncode == 1
    (line,) = said.stderr.splitlines()
    assert f'found version "{told}" ({java})' in line


def test_an_unknown_option_ends_with_2(setup: ModuleType) -> None:
    assert setup.main(["--everything"]) == 2


def test_gpus_are_remembered_until_told_otherwise(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also over a new environment: `make retrain` after `make setup GPU=1` must not go back to the CPU."""
    monkeypatch.setattr(setup, "make_environment", lambda: setup.remember_device(False) or True)
    monkeypatch.setattr(setup, "install_installer", lambda: True)
    for told, remembered in (([], False), (["--gpu"], True), ([], True), (["--cpu"], False), ([], False)):
        (setup.STAMPS / "environment").unlink(missing_ok=True)
        gpu = {"--gpu": True, "--cpu": False}.get("".join(told), setup.for_gpus())
        setup.set_up("installer", gpu=gpu)
        assert setup.for_gpus() is remembered


def test_packages_for_gpus_take_the_place_of_those_for_the_cpu(setup: ModuleType) -> None:
    runtime, gpu = ((ROOT / "requirements" / f"{name}.txt").read_text() for name in ("runtime", "gpu"))
    kept = setup.without_packages(runtime, setup.CPU_BUILDS)
    names = [line.split("==")[0] for line in runtime.splitlines() if "==" in line and line[0].isalpha()]
    assert [line.split("==")[0] for line in kept.splitlines() if "==" in line and line[0].isalpha()] == [
        name for name in names if name not in setup.CPU_BUILDS
    ]
    for name in ("tensorflow", "xgboost"):
        pin = re.search(rf"^{name}-cpu==(\S+)", runtime, re.MULTILINE)[1]
        assert f"\n{name}=={pin} " in gpu
        assert f"\n{name}==" not in kept
