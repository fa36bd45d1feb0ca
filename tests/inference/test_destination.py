"""Where predictions may go is known before scoring, and what is there is not lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from ml_platform.errors import SpecError, StoreError
from ml_platform.inference import destination
from ml_platform.inference.destination import MARKER, _move, check_destination, local_folder, partition


def test_a_new_folder_is_fine_and_the_check_leaves_nothing(tmp_path: Path) -> None:
    check_destination(str(tmp_path / "a" / "b" / "scores"))
    assert list(tmp_path.iterdir()) == []


def test_a_uri_and_a_path_name_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "sco res#1"
    assert local_folder(folder.as_uri()) == local_folder(str(folder)) == folder


@pytest.mark.parametrize("destination", ["/dev/null/scores", "/proc/scores"])
def test_an_unwritable_place_is_found_before_scoring(destination: str) -> None:
    with pytest.raises(StoreError, match="predictions cannot be written to") as caught:
        check_destination(destination)
    assert caught.value.exit_code == 5
    assert "try: name another path" in str(caught.value)


@pytest.mark.parametrize("destination", ["s3://bucket/scores", "", "  "])
def test_what_is_no_local_path_is_refused(destination: str) -> None:
    with pytest.raises(SpecError, match="predictions go to a local folder"):
        check_destination(destination)


def test_a_folder_of_somebody_elses_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("three years")
    with pytest.raises(StoreError, match="holds something that scoring did not write; it stays as it is"):
        check_destination(str(tmp_path))


def test_a_file_or_a_link_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(StoreError, match="is in the way"):
            check_destination(str(tmp_path / name))


def test_an_empty_folder_and_earlier_predictions_may_be_replaced(tmp_path: Path) -> None:
    check_destination(str(tmp_path))
    (tmp_path / MARKER).write_text("{}")
    (tmp_path / "part-0.parquet").write_bytes(b"")
    check_destination(str(tmp_path))


@pytest.mark.parametrize("exchanges", [True, False])
def test_new_predictions_take_the_place_of_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    """In one step where the file system can, in two elsewhere."""
    if not exchanges:
        monkeypatch.setattr(destination, "_exchange", lambda building, folder: False)
    for content in ("old", "new"):
        building = tmp_path / ".scores.building"
        building.mkdir()
        (building / MARKER).write_text(content)
        _move(building, tmp_path / "scores")
    assert (tmp_path / "scores" / MARKER).read_text() == "new"
    left = {path.name for path in tmp_path.iterdir()} - {"scores"}
    assert left <= {".scores.building"}, "the old ones: whoever built the new ones removes them"


KILLED = """
import os, signal, sys
from pathlib import Path
from ml_platform.store.leftovers import builder
folder = Path(sys.argv[1])
(folder / f".scores.{builder()}-1").mkdir()
(folder / f".other.{builder()}-1").mkdir()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_scoring_left_is_removed_by_the_next(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=dict(os.environ), check=False)
    assert ended.returncode == -signal.SIGKILL
    building = tmp_path / "building"
    building.mkdir()
    assert destination.taken_over(tmp_path / "scores", building) == {}
    building.rmdir()
    assert [path.name.split(".")[1] for path in tmp_path.iterdir()] == ["other"]


DAY = date(2026, 11, 27)


def test_a_day_is_added_to_days_and_to_nothing_else(tmp_path: Path) -> None:
    """Readers take a folder as one table: what has a day and what has none cannot lie in one."""
    check_destination(str(tmp_path / "new"), DAY)
    earlier = partition(tmp_path / "days", date(2026, 11, 26))
    earlier.mkdir(parents=True)
    (earlier / MARKER).write_text("{}")
    check_destination(str(tmp_path / "days"), DAY)
    check_destination(str(tmp_path / "days"), date(2026, 11, 26))
    with pytest.raises(StoreError, match="holds predictions of several days; they stay as they are"):
        check_destination(str(tmp_path / "days"))
    with pytest.raises(StoreError, match="holds predictions without a day"):
        check_destination(str(earlier), DAY)
    (tmp_path / "days" / "thesis.tex").write_text("three years")
    with pytest.raises(StoreError, match="holds something that scoring did not write"):
        check_destination(str(tmp_path / "days"), DAY)


KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from datetime import date
from pathlib import Path
from ml_platform.inference import destination

def half(folder, earlier):
    (folder / f"{'0' * 64}.parquet").write_bytes(b"PAR1 half of")
    os.kill(os.getpid(), signal.SIGKILL)

destination.write_predictions(half, sys.argv[1], {}, date(2026, 11, 27) if sys.argv[2] else None)
"""


@pytest.mark.parametrize("day", ["", "a day"])
def test_a_scoring_that_is_killed_in_the_middle_leaves_the_old_predictions(tmp_path: Path, day: str) -> None:
    """What it had written lies under a name that readers of Parquet pass over."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    old = partition(tmp_path / "scores", DAY) if day else tmp_path / "scores"
    old.mkdir(parents=True)
    (old / MARKER).write_text("{}")
    pq.write_table(pa.table({"prediction": ["old"]}), old / "part-0.parquet")
    command = [sys.executable, "-c", KILLED_IN_THE_MIDDLE, str(tmp_path / "scores"), day]
    assert subprocess.run(command, env=dict(os.environ), check=False).returncode == -signal.SIGKILL
    assert pq.read_table(tmp_path / "scores").column("prediction").to_pylist() == ["old"]
    assert len(list(tmp_path.rglob("*.parquet"))) == 2, "the half of the new ones is there, unseen"
    building = tmp_path / "building"
    building.mkdir()
    assert destination.taken_over(old, building) == {}, "what was cut off is no part"
    building.rmdir()
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
