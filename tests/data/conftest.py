"""A store of its own for each test that loads a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_platform.store.folders import local_path
from ml_platform.store.location import data_uri


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_STORE", str(tmp_path / "store"))


def nothing_is_left() -> bool:
    return not list(local_path(data_uri()).glob("*/*"))
