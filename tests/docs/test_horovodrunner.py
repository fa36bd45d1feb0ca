"""The migration page does what it says: its program runs as a person would run it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform import PUBLIC

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "horovodrunner.md").read_text()


def test_every_new_name_is_public() -> None:
    named = re.findall(r"`from ml_platform import (\w+)`", PAGE)
    assert named == ["HorovodRunner", "log_to_driver", "LogCallback"]
    assert set(named) <= {name for names in PUBLIC.values() for name in names.split()}


@pytest.mark.long
@pytest.mark.horovod
def test_the_program_trains_on_two_ranks_and_prints_what_the_page_shows(tmp_path: Path) -> None:
    """In a script of its own: functions of `__main__` travel by value."""
    program, shown = re.search(r"```python\n(.*?)```.*?```\n(.*?)```", PAGE, re.DOTALL).groups()
    (tmp_path / "train.py").write_text(program)
    ended = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout.splitlines()
    assert len(said) == len(shown.splitlines())
    for line, pattern in zip(said, shown.splitlines(), strict=True):
        assert re.fullmatch(re.escape(pattern).replace("…", ".*"), line)
    assert float(said[-1]) > 0.6
    assert "ml_platform" not in {path.name for path in tmp_path.iterdir()}
