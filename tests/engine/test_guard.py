"""Planning cannot run anything: every attack of a dag's function ends the process, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ml_platform.engine import dag, task
from ml_platform.resources.planning import anyone_at_work, at_work, only_plans, planning
from tests.engine.attacks import ATTACKS

pytestmark = pytest.mark.slow

ENDED_BY_US = 2
ENDED_BY_THE_KERNEL = -signal.SIGXFSZ


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[int, str]]]:
    """A folder per attack, and of each how its process ended and what it said."""
    folder = tmp_path_factory.mktemp("attacks")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.engine.attacks", str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    ends = {name: (code, said) for name, code, said in map(json.loads, ran.stdout.splitlines())}
    assert list(ends) == list(ATTACKS), ran.stderr
    return folder, ends


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_ends_the_process(name: str, attacked: tuple[Path, dict[str, tuple[int, str]]]) -> None:
    """Also when it suppresses every exception, BaseException included."""
    folder, ends = attacked
    code, said = ends[name]
    assert code in (ENDED_BY_US, ENDED_BY_THE_KERNEL), said
    assert not (folder / name / "evidence").exists()
    assert not (folder / name / "survived").exists()
    if code == ENDED_BY_US:
        assert "tried to run something" in said
        assert "move it into a task" in said


def test_after_a_plan_everything_is_allowed_again(tmp_path: Path) -> None:
    """A notebook plans, and goes on."""

    @task
    def write(folder: str) -> int:
        return Path(folder, "file").write_text("written")

    @dag
    def writes(folder: str) -> int:
        return write(folder)

    writes.plan(folder=str(tmp_path))
    Path(tmp_path, "mine").write_text("x" * 10_000)
    assert write.fn(str(tmp_path)) == len("written")


@pytest.mark.long
def test_a_dag_that_prints_into_a_file_is_planned(tmp_path: Path) -> None:
    """stdout of a scheduled job is a file, and files may not grow while the dag's function runs."""
    script = """
import logging, sys
from ml_platform.engine import dag, task
logging.basicConfig(stream=sys.stderr)
@task
def one() -> int:
    return 1
@dag
def talks() -> int:
    print("said by the dag")
    logging.warning("logged by the dag")
    return one()
print(talks.plan().summary())
"""
    (tmp_path / "talks.py").write_text(script)
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        ended = subprocess.run(
            [sys.executable, tmp_path / "talks.py"],
            env={**os.environ, "ML_PLATFORM_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path.cwd())},
            stdout=out,
            stderr=err,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 0
    assert (tmp_path / "out").read_text().splitlines() == ["said by the dag"] * 2 + ["1 run"]
    assert (tmp_path / "err").read_text().count("logged by the dag") == 2


def test_an_attack_is_told_when_stderr_is_a_file(tmp_path: Path) -> None:
    with (tmp_path / "err").open("w") as err:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.engine.attacks", "a_process", str(tmp_path)],
            env={**os.environ, "ML_PLATFORM_HOME": str(tmp_path / "home")},
            stderr=err,
            timeout=120,
            check=False,
        )
    assert ended.returncode == ENDED_BY_US
    assert "subprocess.Popen" in (tmp_path / "err").read_text()


def test_plans_may_be_made_side_by_side() -> None:
    """Whichever ends first leaves the other guarded, and nothing is forbidden afterwards."""
    with planning():
        ended = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(_plan_until, ended)
            ended.set()
        assert only_plans()
    assert not only_plans()


def _plan_until(ended: threading.Event) -> None:
    with planning():
        ended.wait(30)


def test_a_thread_of_a_run_is_not_part_of_what_is_planned() -> None:
    with planning(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(only_plans).result(), "a thread that the planned code could have started"
        assert not pool.submit(_only_plans_at_work).result()
        assert pool.submit(only_plans).result()


def _only_plans_at_work() -> bool:
    with at_work():
        return only_plans()


def test_a_task_that_plans_another_dag_is_guarded() -> None:
    """At work itself, but not in what it only plans."""
    with at_work():
        with planning():
            assert only_plans()
        assert not only_plans()
        assert anyone_at_work()
