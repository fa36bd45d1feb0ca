"""Models that a worker process keeps open: few, and not too large together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from ml_platform.inference import worker_models
from ml_platform.inference.worker_models import KEPT, loaded


@dataclass(frozen=True)
class Broadcast:
    value: Mapping[str, bytes]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> OrderedDict[str, worker_models._Kept]:
    """This process's models, of which there are none yet; 100 bytes are the most."""
    monkeypatch.setattr(worker_models, "KEPT_BYTES", 100)
    monkeypatch.setattr(worker_models, "_models", cache(OrderedDict))
    return worker_models._models()


def load(key: str, size: int, *, keeps_files: bool = False) -> Path:
    """A model that is the folder where its files lay."""
    files = Broadcast({"a": b"x" * (size - 1), "sub/b": b"x"})
    folder: Path = loaded(key, files, lambda folder: folder, keeps_files=keeps_files)
    return folder


def test_the_models_used_last_are_kept_as_long_as_they_are_few(
    kept: OrderedDict[str, worker_models._Kept],
) -> None:
    for key in ("a", "b", "c", "a", "d"):
        load(key, 2)
    assert list(kept) == ["c", "a", "d"]
    assert len(kept) == KEPT


def test_large_models_make_room_before_the_next_one_is_opened(
    kept: OrderedDict[str, worker_models._Kept],
) -> None:
    """So that they are never in memory together. One that is too large alone is opened all the same."""
    load("a", 40)
    load("b", 40)
    load("a", 40)
    with pytest.raises(ZeroDivisionError):
        loaded("c", Broadcast({"a": b"x" * 50}), lambda _: 1 // 0)
    assert list(kept) == ["a"]
    load("d", 60)
    assert list(kept) == ["a", "d"]
    load("huge", 1000)
    assert list(kept) == ["huge"]
    assert load("huge", 1000) == kept["huge"].model


def test_files_stay_with_the_models_that_read_them_later(
    kept: OrderedDict[str, worker_models._Kept],
) -> None:
    gone, there = load("a", 2), load("b", 2, keeps_files=True)
    assert not gone.exists()
    assert (there / "sub" / "b").read_bytes() == b"x"
    load("c", 100)
    assert list(kept) == ["c"]
    assert not there.exists()
