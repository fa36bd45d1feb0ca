"""One trial: what is tried, what came of it. A trial that fails is a result; a machine that fails is not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from ml_platform.errors import DataError, DivergedError, RankError, RankLostError, UsageError
from ml_platform.specs.base import Spec
from ml_platform.specs.problems import ProblemKind
from ml_platform.specs.references import ModelFamily
from ml_platform.specs.tracking import TrackingRun
from ml_platform.specs.tuning import Asked, Pruner, Trial
from ml_platform.tuning.pruning import Stop, stop_rule
from ml_platform.tuning.spaces import applied

S = TypeVar("S", bound=Spec)
OnMetrics = Callable[[Mapping[str, float], int], None]
Fit = Callable[[S, Stop | None, OnMetrics], Sequence[float]]
"""Trains by a spec until the rule ends it. Returns the validation loss by epoch or round, at least one."""


def attempt(
    family: ModelFamily,
    asked: Asked,
    base: S,
    fit: Fit[S],
    *,
    metric: str,
    run: TrackingRun,
    rivals: Sequence[Trial] = (),
    pruner: Pruner = "none",
    steps: int = 1,
) -> Trial:
    """Train by the point that was asked for, with an MLflow run of its own inside `run`.

    Args:
        base: The family's spec; the point replaces some of its fields.
        metric: What the losses are.
        rivals: Trials that this one may be ended for.
        pruner: Whether it is; none: it takes all its steps.
        steps: Epochs or rounds at most.
    Raises:
        InfrastructureError: Ranks, Spark or MLflow failed: that says nothing about the point.
    """
    if asked.parameters is None:
        return Trial(family=family, parameters={}, state="not run", reason=asked.reason)
    tried = Trial(
        family=family, parameters=asked.parameters, state="complete", metric=metric, run_id=run.run_id
    )
    stop = stop_rule(pruner, rivals, steps=steps)
    began, at = time.monotonic(), time.time()
    try:
        # A trial does not wait for MLflow, whose requests take as long as a short trial.
        with run.nested_later(f"{family} {asked.number}", {"trial": asked.number}) as own:
            own.log_params({"family": family, family: applied(base, asked.parameters)})
            curve = fit(applied(base, asked.parameters), stop, lambda m, step: own.log_metrics(m, step=step))
            tried = tried.model_copy(update=_found(curve, stop))
            for step, loss in enumerate(curve):
                own.log_metrics({metric: loss}, step=step)
            own.log_metrics({f"best_{metric}": min(curve)})
            if tried.state == "pruned":
                own.set_tags({"trial.state": tried.state})
    except (DataError, UsageError, RankError) as error:
        if isinstance(error, RankLostError):
            raise
        tried = tried.model_copy(update={"state": "failed", "reason": error.what})
    return tried.model_copy(update={"seconds": round(time.monotonic() - began, 3), "began": round(at, 3)})


def _found(curve: Sequence[float], stop: Stop | None) -> dict[str, object]:
    if not all(math.isfinite(loss) for loss in curve):
        raise DivergedError(f"the validation loss is {curve[-1]}", wanted="a finite number", got=curve[-1])
    found: dict[str, object] = {"curve": tuple(curve), "value": min(curve)}
    if stop is not None and stop(curve):
        reason = f"behind the others after {len(curve)} steps"
        found |= {"state": "pruned", "reason": reason}
    return found


def losses(history: Mapping[str, Sequence[float]], problem: ProblemKind, *, scale: float) -> list[float]:
    """The validation loss by step, in the unit of the label, from what a family recorded.

    Args:
        history: Values by name: `val_loss` of Keras, `validation-…` of XGBoost.
        scale: What one unit of a standardised label is.
    """
    squared = history.get("val_loss")
    if squared is not None and problem == "regression":
        return [math.sqrt(value) * scale for value in squared]
    found = squared or next(values for name, values in history.items() if name.startswith("validation-"))
    return [value * scale if problem == "regression" else value for value in found]
