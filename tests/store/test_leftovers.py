"""What a killed process left unfinished is removed by the next run; what a living one builds is not."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ml_platform.store import leftovers
from ml_platform.store.leftovers import (
    builder,
    scratch_folder,
    sweep,
    temporary_files_removed,
    unfinished,
)
from ml_platform.store.location import data_uri, home

KILLED = """
import os, signal
from pathlib import Path
from ml_platform.store.leftovers import builder, scratch_folder
from ml_platform.store.location import home
kept = scratch_folder()
for name in (f"data/numbers/1.tmp-{builder()}-x", f"scratch/spark-{builder()}-y"):
    (home() / name).mkdir(parents=True)
    (home() / name / "part").touch()
(home() / "data" / ".results").mkdir()
(home() / "data" / ".results" / f".building-{builder()}-z").touch()
for name in ("runs/r", "history", "evaluations"):
    (home() / name).mkdir(parents=True)
for name in ("runs/r/.run.json-", "history/.a.json-", ".anything.json-", "evaluations/.rows.parquet."):
    (home() / f"{name}{builder()}").touch()
os.kill(os.getpid(), signal.SIGKILL)
"""


OUTLIVED = """
import os, signal, subprocess
from ml_platform.store.leftovers import temporary_files_removed
run = temporary_files_removed()
run.__enter__()
print(subprocess.Popen(["cat"], stdout=subprocess.DEVNULL).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def _left() -> list[Path]:
    return list(unfinished(home(), data_uri(), Path(tempfile.gettempdir())))


def test_leftovers_of_a_killed_process_go() -> None:
    subprocess.run([sys.executable, "-c", KILLED], env=dict(os.environ), check=False, timeout=60)
    assert len(_left()) == 8
    sweep()
    assert _left() == []


def test_what_a_living_process_builds_stays() -> None:
    with scratch_folder() as folder:
        sweep()
        assert Path(folder).is_dir()
    assert _left() == []


def test_what_may_not_be_removed_stops_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is read-only now: what it holds can still be used."""
    subprocess.run([sys.executable, "-c", KILLED], env=dict(os.environ), check=False, timeout=60)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    sweep()
    assert [path.name.split("-by-")[0] for path in _left() if "building" in path.name] == [".building"]


def test_a_number_that_is_used_again_is_another_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has the number of a dead one that left a folder."""
    start = builder().rpartition("-")[2]
    left = Path(tempfile.gettempdir(), f"ml-platform-{builder().removesuffix(start)}{int(start) - 1}-x")
    left.mkdir()
    sweep()
    assert not left.exists()


def test_what_another_machine_builds_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store may be shared: a process that is not here may live there."""
    monkeypatch.setattr(leftovers, "_host", lambda: "0" * 8)
    left = Path(tempfile.gettempdir(), f"ml-platform-by-{'1' * 8}-1-1-x")
    left.mkdir()
    sweep()
    assert left.exists()


def test_temporary_files_of_a_run_go_with_it_in_processes_that_it_starts_too() -> None:
    outside = tempfile.gettempdir()
    with temporary_files_removed():
        os.close(tempfile.mkstemp()[0])
        subprocess.run([sys.executable, "-c", "import tempfile; tempfile.mkstemp()"], check=True, timeout=60)
        assert len(list(Path(tempfile.gettempdir()).iterdir())) == 2
        sweep()
        assert len(list(Path(tempfile.gettempdir()).iterdir())) == 2, "it looks beside this folder"
        assert len(_left_beside(outside)) == 1
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == outside
    assert _left_beside(outside) == []


def test_runs_side_by_side_share_a_folder_until_the_last_has_ended() -> None:
    outside = tempfile.gettempdir()
    first, second = temporary_files_removed(), temporary_files_removed()
    first.__enter__()
    shared = tempfile.gettempdir()
    second.__enter__()
    assert tempfile.gettempdir() == shared != outside
    first.__exit__(None, None, None)
    assert Path(tempfile.mkstemp()[1]).parent == Path(shared)
    second.__exit__(None, None, None)
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == outside
    assert _left_beside(outside) == []


def test_temporary_files_of_a_killed_run_go_with_the_next() -> None:
    script = "import os, tempfile; from ml_platform.store.leftovers import temporary_files_removed as t; "
    script += "run = t(); run.__enter__(); tempfile.mkstemp(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    outside = tempfile.gettempdir()
    assert len(_left_beside(outside)) == 1
    with temporary_files_removed():
        sweep()
        assert len(_left_beside(outside)) == 1, "its own"
    assert _left_beside(outside) == []


def test_the_temporary_folder_of_a_process_that_outlives_its_run_stays_until_it_has_ended() -> None:
    """Such as a JVM: one that finds its folder gone while it starts stays for ever."""
    readable, writable = os.pipe()
    killed = [sys.executable, "-c", OUTLIVED]
    ran = subprocess.run(killed, stdin=readable, stdout=subprocess.PIPE, check=False, timeout=60)
    outside = tempfile.gettempdir()
    sweep()
    assert len(_left_beside(outside)) == 1
    left = os.pidfd_open(int(ran.stdout))
    os.close(writable)
    select.select([left], [], [], 60)
    os.close(left)
    os.close(readable)
    sweep()
    assert _left_beside(outside) == []


def _left_beside(folder: str) -> list[Path]:
    return list(Path(folder).iterdir())
