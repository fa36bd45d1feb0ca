"""`runs` and `show` read well in a terminal of 80 columns."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from ml_platform.cli.run_commands import diff, runs, show
from ml_platform.store.location import runs_folder
from ml_platform.store.records import RunRecord

STARTED = "2026-11-27T06:18:40+00:00"


@pytest.fixture(autouse=True)
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    for name, reason in (("wisteria-hummingbird", "never ran"), ("impossible-ocelot", "parameter x: 1 → 2")):
        record = RunRecord(runs_folder(name))
        facts = {"run": name, "dag": "retrain", "started": STARTED}
        record.begin(**facts)
        record.node("train_keras", state="completed", seconds=12.34, reason=reason, parts={"x": reason[-1]})
        record.node("judge", state="failed", seconds=0.0, error="StoreError: the store is full, " * 4)
        record.finish(**facts, state="failed: ResourceStartError")


def test_each_run_is_a_line_that_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert runs("retrain") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    local = datetime.fromisoformat(STARTED).astimezone().strftime("%Y-%m-%d %H:%M")
    for name in ("wisteria-hummingbird", "impossible-ocelot"):
        (line,) = [line for line in lines if name in line]
        assert line.split()[:6] == [name, *local.split(), "1", "0", "1"]


def test_a_long_reason_is_folded_beside_its_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert show("retrain", "impossible-ocelot") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run impossible-ocelot of retrain: failed: ResourceStartError"
    assert all(len(line) <= 80 for line in lines)
    assert lines[2].split() == ["train_keras", "completed", "12.3", "parameter", "x:", "1", "→", "2"]
    assert " ".join(" ".join(lines[3:]).split()).count("the store is full") == 4


def test_what_differs_is_said_by_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert diff("retrain", "wisteria-hummingbird", "impossible-ocelot") == 0
    assert capsys.readouterr().out.splitlines() == ["train_keras", "  x: n → 2"]
