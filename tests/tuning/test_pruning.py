"""Pruners: a trial that is behind others at its step is ended, none before enough is known."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from ml_platform.specs.tuning import Pruner, Trial
from ml_platform.tuning.pruning import stop_rule


def rivals(count: int) -> list[Trial]:
    """Trials that end at 1, 2, 3, …, each after eight steps."""
    curves = [tuple(final + 8.0 - step for step in range(1, 9)) for final in range(1, count + 1)]
    return [Trial(family="keras", parameters={}, state="complete", value=c[-1], curve=c) for c in curves]


@pytest.mark.parametrize(("pruner", "ended_from"), [("median", 3.5), ("quartile", 2.5)])
def test_what_is_worse_than_so_many_others_ends_after_the_warm_up(pruner: Pruner, ended_from: float) -> None:
    stop = stop_rule(pruner, rivals(5), steps=8)
    assert stop is not None
    stop = pickle.loads(pickle.dumps(stop))  # as it reaches ranks and executors
    behind, ahead = ([final + 8.0 - step for step in (1, 2, 3)] for final in (ended_from, ended_from - 1))
    assert stop(behind)
    assert not stop(ahead)
    assert not stop([1e9, 1e9])


def test_few_rivals_or_no_pruner_end_nothing() -> None:
    assert stop_rule("median", rivals(4), steps=8) is None
    assert stop_rule("none", rivals(9), steps=8) is None
    failed = [trial.model_copy(update={"state": "failed"}) for trial in rivals(9)]
    assert stop_rule("median", failed, steps=8) is None


def test_a_rule_says_nothing_even_as_the_first_that_imports_optuna() -> None:
    """As in a rank."""
    code = "from ml_platform.tuning.pruning import AmongRivals; AmongRivals(50.0, ((1.0,),) * 8, 0)([1.0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
