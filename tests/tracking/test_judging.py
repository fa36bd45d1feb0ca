"""What the gate's task adds: a champion that cannot read the table, a model that was taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_platform.specs.contracts import Column, Contract
from ml_platform.specs.references import Dataset, Model, Version
from ml_platform.specs.tables import SplitSpec
from ml_platform.specs.tracking import TrackingRun
from ml_platform.tracking import promote
from ml_platform.tracking.champions import rollback
from tasks.evaluate import judge
from tests.evaluation.test_gate import ROWS, SPEC, STATE, Rows
from tests.tracking.conftest import CONTRACT
from tests.tracking.test_registry import versions

pytestmark = pytest.mark.slow


def _judged(rows: Rows, model: Model, champion: Version, run: TrackingRun, **given: Any) -> Any:
    """A challenger that is far better than the champion, on the same rows."""
    good = rows.evaluation(np.full(ROWS, 0.1), "new", model=model)
    bad = rows.evaluation(np.random.default_rng(0).gamma(2, 0.5, ROWS) + 0.2, "old", model=model)
    arguments = {"champion_on_holdout": bad, "state": STATE, "split": SplitSpec(), "spec": SPEC, "run": run}
    return judge.function(challenger=good, champion=champion, name="retrain", **{**arguments, **given})


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path)


def test_a_champion_that_cannot_read_the_table_is_not_comparable_and_the_columns_are_named(
    rows: Rows, model: Model, run: TrackingRun, train: Dataset
) -> None:
    """The table has lost a column and retyped another one: a verdict with a diff, and no crash."""
    (champion,) = versions(model, run, 1)
    columns = [column for column in CONTRACT.columns if column.name not in {"income", "age"}]
    retyped = Contract(columns=(*columns, Column(name="age", type="string")), label="churned")
    holdout = train.model_copy(update={"contract": retyped})
    verdict = _judged(rows, model, champion, run, champion_on_holdout=None, holdout=holdout)
    assert verdict.decision == "not comparable"
    assert "The champion cannot read this table" in verdict.reason
    assert verdict.evidence.splitlines() == [
        "column  the model reads  the table has",
        "age     integer          string",
        "income  float            nothing; no column of a similar name",
    ]


def test_a_model_that_was_taken_back_is_held_although_it_is_better(
    rows: Rows, model: Model, run: TrackingRun, train: Dataset
) -> None:
    """Otherwise the next night would undo what a person did."""
    first, second = versions(model, run, 2)
    promote(first, None)
    promote(second, first)
    assert _judged(rows, model, first, run, holdout=train).decision == "promote"
    rollback("retrain", why="it scores nonsense")
    verdict = _judged(rows, model, first, run, holdout=train)
    assert verdict.decision == "hold"
    assert "was taken back by" in verdict.reason
    assert "it scores nonsense" in verdict.reason
