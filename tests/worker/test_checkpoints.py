"""Checkpoints are whole or not there: any cut is noticed, and the one before is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ml_platform.errors import StoreError
from ml_platform.worker.checkpoints import Checkpoint, Shelf, unpacked


def checkpoint(epoch: int) -> Checkpoint:
    facts = {"epoch": epoch, "best": float("inf"), "rate": np.float32(0.5)}
    arrays = [np.full((2, 3), epoch, np.float32), np.array(7, np.int64), np.zeros((0, 4), np.float16)]
    return Checkpoint(facts, arrays)


def test_what_is_packed_comes_back() -> None:
    found = unpacked(checkpoint(3).packed())
    assert found is not None
    assert found.facts == {"epoch": 3, "best": float("inf"), "rate": 0.5}
    assert [(a.dtype, a.shape, a.tolist()) for a in found.arrays] == [
        (a.dtype, a.shape, a.tolist()) for a in checkpoint(3).arrays
    ]


def test_weights_of_sixteen_bits_come_back() -> None:
    """TensorFlow's bfloat16 is no type of NumPy's own."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    found = unpacked(Checkpoint({}, [np.array([1.5, -2.0], ml_dtypes.bfloat16)]).packed())
    assert found is not None
    assert found.arrays[0].dtype == ml_dtypes.bfloat16
    assert found.arrays[0].astype(float).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("cut", [0, 1, 31, 32, 39, 60, -1])
def test_every_cut_is_noticed(cut: int) -> None:
    assert unpacked(checkpoint(1).packed()[:cut]) is None


def test_a_flipped_bit_is_noticed() -> None:
    content = bytearray(checkpoint(1).packed())
    content[-1] ^= 1
    assert unpacked(bytes(content)) is None


def test_newest_is_found_and_two_are_kept(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path.as_uri(), "fit-1-abc")
    assert shelf.newest() == (None, [])
    for epoch in (8, 9, 10):
        shelf.put(epoch, checkpoint(epoch))
    assert shelf.newest() == (checkpoint(10).packed(), [])
    assert sorted(path.name for path in (tmp_path / "fit-1-abc").iterdir()) == [
        "epoch-000009",
        "epoch-000010",
    ]
    assert Shelf(tmp_path.as_uri(), "fit-2-abc").newest() == (None, [])


def test_one_that_was_cut_short_gives_way_to_the_one_before(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path.as_uri(), "fit")
    for epoch in (1, 2):
        shelf.put(epoch, checkpoint(epoch))
    newest = tmp_path / "fit" / "epoch-000002"
    newest.write_bytes(newest.read_bytes()[:-5])
    assert shelf.newest() == (checkpoint(1).packed(), ["fit/epoch-000002"])


def test_a_store_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="the checkpoint of epoch 1 cannot be kept in file://"):
        Shelf((tmp_path / "file").as_uri(), "fit").put(1, checkpoint(1))
