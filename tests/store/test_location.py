"""Where a project keeps what it writes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ml_platform.errors import SpecError, StoreError
from ml_platform.store.location import data_uri, home, runs_folder


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ML_PLATFORM_STORE", raising=False)
    return tmp_path / "home"


def test_the_folder_is_made_for_its_owner_alone(own_home: Path) -> None:
    assert home() == own_home
    assert stat.S_IMODE(own_home.stat().st_mode) == 0o700


def test_without_the_variable_it_lies_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ML_PLATFORM_HOME")
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path / ".ml-platform"


def test_a_folder_that_cannot_be_made_is_a_store_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(StoreError, match="cannot be made") as caught:
        home()
    assert "ML_PLATFORM_HOME" in str(caught.value)


def test_data_lie_below_home_unless_a_store_is_named(monkeypatch: pytest.MonkeyPatch, own_home: Path) -> None:
    assert data_uri() == (own_home / "data").as_uri()
    monkeypatch.setenv("ML_PLATFORM_STORE", "s3://bucket/tables/")
    assert data_uri() == "s3://bucket/tables"
    monkeypatch.setenv("ML_PLATFORM_STORE", "/data/tables")
    assert data_uri() == "file:///data/tables"


def test_a_run_has_a_folder_of_its_name(own_home: Path) -> None:
    assert runs_folder("brave-otter") == own_home / "runs" / "brave-otter"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../other", "a\0b"])
def test_a_name_that_leaves_the_folder_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="cannot name a run"):
        runs_folder(name)
