"""Objects that live as long as a block, on every kind of storage; checkpoints are their first use."""

from __future__ import annotations

import pytest

from ml_platform.store.garbage import contents
from ml_platform.store.leftovers import PASSING
from ml_platform.store.objects import open_objects
from ml_platform.store.passing import passing_objects
from ml_platform.worker.checkpoints import Checkpoint, Shelf
from tests.protocols.stores import Store


def checkpoint(epoch: int) -> Checkpoint:
    return Checkpoint({"epoch": epoch}, [])


def fail_with_checkpoints() -> None:
    with passing_objects() as uri:
        shelf = Shelf(uri, "fit")
        for epoch in (1, 2, 3):
            shelf.put(epoch, checkpoint(epoch))
        open_objects(uri).write("fit/epoch-000003", b"cut short")
        assert shelf.newest() == (checkpoint(2).packed(), ["fit/epoch-000003"])
        assert [item.kind for item in contents() if item.key.startswith(PASSING)] == ["unfinished"] * 3
        raise RuntimeError("the job failed")


def test_checkpoints_are_there_while_their_job_runs_alone(store: Store) -> None:
    """One that was cut short gives way to the one before. Another job's stay when this one's go."""
    with passing_objects() as other:
        Shelf(other, "fit").put(1, checkpoint(1))
        with pytest.raises(RuntimeError, match="the job failed"):
            fail_with_checkpoints()
        left = [entry.key.rpartition("/")[2] for entry in open_objects(store.uri).walk(PASSING)]
        assert left == ["epoch-000001"]
    assert not list(open_objects(store.uri).walk())
