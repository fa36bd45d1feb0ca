"""Why two runs differ: code, parameters, data and versions are told apart, from the records of real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_platform.engine import Dag, code, dag, task
from ml_platform.engine.compare import compare
from ml_platform.store.records import read_run
from tests.engine.runs import Runner

pytestmark = pytest.mark.slow


def up(x: int) -> int:
    return x + 1


def down(x: int) -> int:
    return x - 1


def look(file: str) -> str:
    return Path(file).read_text()


@task(probe=look)
def load(file: str) -> str:
    return Path(file).read_text()


def training(step: Callable[[int], int]) -> Dag[..., Any]:
    """A model of a file, and of a helper that may be another."""

    @task
    def fit(rows: str, rate: int) -> int:
        import numpy as np

        return int(np.int64(step(len(rows) * rate)))

    @dag(name="training")
    def declared(file: str, rate: int = 1) -> int:
        return fit(load(file), rate)

    return declared


def test_each_cause_is_named_where_it_came_in(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "table"
    table.write_text("abc")
    file = str(table)
    run(training(up), file=file)
    run(training(down), file=file)
    run(training(down), file=file, rate=2)
    table.write_text("abcd")
    run(training(down), file=file, rate=2)
    found = code.versions
    monkeypatch.setattr(code, "versions", lambda tops: {**found(tops), "numpy": "9.0"})
    run(training(down), file=file, rate=2)

    def between(one: int, two: int) -> dict[str, tuple[str, ...]]:
        records = read_run(f"run-{one}"), read_run(f"run-{two}")
        return {difference.node: difference.changes for difference in compare(*records)}

    assert between(1, 1) == {}
    ((changed,),) = between(1, 2).values()
    assert (
        changed
        == "function tests.engine.test_compare.down is new; function tests.engine.test_compare.up is gone"
    )
    assert between(2, 3) == {"fit": ("parameter rate: 1 → 2",)}
    data = between(3, 4)
    assert set(data) == {"load", "fit"}
    assert "probe" in data["load"][0]
    assert data["fit"][0].startswith("input rows moved from ")
    versions = between(4, 5)
    assert all(
        changes[0].startswith("numpy ") and changes[0].endswith(" → 9.0") for changes in versions.values()
    )
    assert "fit" in versions
