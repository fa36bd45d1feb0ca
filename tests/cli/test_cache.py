"""`python -m ml_platform cache`: says what it would remove, and removes only when told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ml_platform.cli.main import main
from ml_platform.store.location import data_uri
from ml_platform.store.occupancy import occupied
from ml_platform.store.results import Results
from tests.store.test_results import OTHER, OWN, result


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """Two results: one of an hour ago, of a run that has no record, and a younger one."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.delenv("ML_PLATFORM_STORE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    results = Results()
    results.put(result())
    (old,) = tmp_path.rglob("*.json")
    before = old.stat().st_mtime - 3700
    os.utime(old, (before, before))
    results.put(result(own=OTHER))
    return results


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["cache", *words]) == 0
    return capsys.readouterr().out


def test_du_says_what_is_there(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(said(capsys, "du", "--json"))
    assert told["store"] == data_uri()
    assert told["kinds"]["result"]["count"] == 2
    assert told["bytes"] == told["kinds"]["result"]["bytes"] > 0
    shown = said(capsys, "du")
    assert data_uri() in shown
    assert "result" in shown


def test_gc_is_a_dry_run_unless_told(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(said(capsys, "gc", "--json"))
    assert told["deleted"] is False
    assert (told["garbage"]["result"]["count"], told["kept"]["result"]["count"]) == (1, 1)
    assert "--delete" in said(capsys, "gc")
    assert results.any(OWN)
    assert f"removed from {data_uri()}" in said(capsys, "gc", "--delete")
    assert (results.any(OWN), results.any(OTHER)) == (False, True)
    assert f"no garbage in {data_uri()}" in said(capsys, "gc", "--delete")


def test_gc_removes_nothing_while_a_run_is_under_way(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may have found a result that no record names yet."""
    with occupied(), occupied():
        assert json.loads(said(capsys, "gc", "--json"))["garbage"]["result"]["count"] == 1
        assert main(["cache", "gc", "--delete"]) == 5
    assert "a run is under way" in capsys.readouterr().err
    assert results.any(OWN)
    said(capsys, "gc", "--delete")
    assert not results.any(OWN)


def test_gc_refuses_when_the_registry_cannot_be_asked(
    results: Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it reaches is not known, so nothing may go."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["cache", "gc", "--delete"]) == 5
    assert "TrackingError" in capsys.readouterr().err
    assert results.any(OWN)


def test_gc_refuses_when_a_run_record_is_damaged(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "torn").mkdir(parents=True)
    (tmp_path / "runs" / "torn" / "run.json").write_text("{")
    assert main(["cache", "gc", "--delete"]) == 5
    assert "torn" in capsys.readouterr().err
    assert results.any(OWN)


def test_wrong_words_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "gc", "--keep-runs", "-1"]) == 2
    assert main(["cache", "clean"]) == 2
    assert "Traceback" not in capsys.readouterr().err
