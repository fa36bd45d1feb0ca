"""How long tasks take is the median of the last times that they ran; nothing is decided by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_platform.store.history import NodeHistory, add_to_history, read_history


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    return tmp_path


def ran(*seconds: float) -> None:
    add_to_history("d", {"a": NodeHistory(run="r", seconds=seconds)})


def test_the_median_of_the_last_five_times_is_expected() -> None:
    assert read_history("d") == {}
    for seconds in (100.0, 90.0, 1.0, 2.0, 3.0, 50.0, 4.0):
        ran(seconds)
    assert read_history("d")["a"].seconds == (1.0, 2.0, 3.0, 50.0, 4.0)
    assert read_history("d")["a"].expected_seconds == 3.0


def test_a_run_that_found_the_result_says_nothing_of_time() -> None:
    ran(7.0)
    ran()
    assert read_history("d")["a"].expected_seconds == 7.0
    add_to_history("other", {"a": NodeHistory(run="r")})
    assert read_history("other")["a"].expected_seconds is None


@pytest.mark.parametrize("content", ["", "{", '{"a": {"run": 1}}', '{"a": {"run": "r", "later": 1}}'])
def test_a_damaged_one_is_empty_and_is_written_anew(content: str, home: Path) -> None:
    ran(7.0)
    (file,) = (home / "history").iterdir()
    file.write_text(content)
    assert read_history("d") == {}
    ran(3.0)
    assert read_history("d")["a"].expected_seconds == 3.0
